//! A simulated machine: its kernel, and the process that runs on it.
//!
//! A process is one `LocalSet`, polled by one task of the run's own. To kill the process is to drop its `LocalSet`. Its
//! boot number then bars it from the network, while it is being dropped and in tasks that outlive it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::time::Time;
use tokio::task::LocalSet;

use super::kernel::Kernel;
use super::segment::{Flow, HostIndex, Kind, Segment};
use super::{Wire, wire};
use crate::{End, SlowReader};

/// A simulated machine.
pub(crate) struct Host {
    pub name: Arc<str>,
    pub slow_reader: Option<SlowReader>,
    /// The number of reads cut short because the process reads slowly.
    pub slowed: u64,
    pub kernel: Kernel,
    powered: bool,
    boot: u64,
    running: bool,
    frozen: bool,
    tasks: Option<Box<LocalSet>>,
    waker: Option<Waker>,
    /// Operations that wait for the thaw, of tasks outside the `LocalSet`.
    parked: Vec<Waker>,
}

impl Host {
    /// A machine that is on, with no process.
    pub(crate) fn new(name: Arc<str>) -> Self {
        Host {
            name,
            slow_reader: None,
            slowed: 0,
            kernel: Kernel::default(),
            powered: true,
            boot: 0,
            running: false,
            frozen: false,
            tasks: None,
            waker: None,
            parked: Vec::new(),
        }
    }

    /// Returns true if its kernel is alive.
    pub(crate) fn is_up(&self) -> bool {
        self.powered
    }

    /// Returns true if a process runs on it, frozen or not.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Returns true if its process is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The number of processes started on it so far.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Ends the process: from now on all it does fails. Its tasks must be dropped outside the wire.
    fn end(&mut self) -> Option<Box<LocalSet>> {
        self.running = false;
        self.wake_parked();
        self.tasks.take()
    }

    fn wake_parked(&mut self) {
        self.frozen = false;
        self.waker.iter().for_each(Waker::wake_by_ref);
        self.parked.drain(..).for_each(Waker::wake);
    }
}

/// One boot of one host. All that a process does on the network passes through it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub host: HostIndex,
    pub boot: u64,
}

impl Process {
    /// Admits one socket call. Fails with `ConnectionAborted` once the boot is over, and is pending while the process is
    /// frozen.
    pub(crate) fn enter(self, wire: &mut Wire, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let host = wire.host(self.host);
        if !self.lives_on(host) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the process has ended")));
        }
        if host.frozen {
            if !host.parked.iter().any(|parked| parked.will_wake(cx.waker())) {
                host.parked.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Returns true if the process has not ended.
    pub(crate) fn is_alive(self, wire: &mut Wire) -> bool {
        self.lives_on(wire.host(self.host))
    }

    fn lives_on(self, host: &Host) -> bool {
        host.running && host.boot == self.boot
    }

    /// The name of its host.
    pub(crate) fn name(self, wire: &mut Wire) -> Arc<str> {
        wire.host(self.host).name.clone()
    }
}

/// Polls the processes of one host, one boot after the other.
pub(crate) struct HostTask(pub HostIndex);

impl Future for HostTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The tasks are taken out while they run, for they use the wire.
        let taken = wire(|wire| {
            let host = wire.host(self.0);
            if !host.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                host.waker = Some(cx.waker().clone());
            }
            let tasks = if host.frozen { None } else { host.tasks.take() };
            tasks.map(|tasks| (tasks, host.boot))
        });
        let Some((mut tasks, boot)) = taken else { return Poll::Pending };
        let _ = Pin::new(&mut *tasks).poll(cx);
        let ended = wire(|wire| {
            let host = wire.host(self.0);
            if host.running && host.boot == boot {
                host.tasks = Some(tasks);
                None
            } else {
                Some(tasks)
            }
        });
        drop(ended); // not before the wire is free
        Poll::Pending
    }
}

/// Starts a process. What the last one left in the kernel is cleared first.
///
/// # Panics
/// If a process is running on the host.
pub(crate) fn start<F>(index: HostIndex, main: impl FnOnce(Process) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let process = wire(|wire| {
        assert!(!wire.host(index).running, "a process is already running on {}", wire.host(index).name);
        wire.clear_kernel(index, Time::now());
        let host = wire.host(index);
        (host.powered, host.running) = (true, true);
        host.boot += 1;
        Process { host: index, boot: host.boot }
    });
    let tasks = Box::new(LocalSet::new());
    {
        let _inside = tasks.enter(); // what `main` itself spawns belongs to the process
        tasks.spawn_local(main(process));
    }
    wire(|wire| {
        let host = wire.host(index);
        host.tasks = Some(tasks);
        host.waker.iter().for_each(Waker::wake_by_ref);
    });
}

/// Ends the process and leaves the kernel, which says goodbye for it. False if there is no process.
pub(crate) fn stop(index: HostIndex) -> bool {
    let Some(tasks) = wire(|wire| wire.host(index).running.then(|| wire.host(index).end())) else { return false };
    drop(tasks);
    wire(|wire| {
        // Streams held by a library's tasks outside the process end as a killed process's would.
        let now = Time::now();
        for local in wire.held_by(index) {
            wire.abort(local, io::ErrorKind::ConnectionAborted, now);
            wire.send(Segment::bare(local, Kind::Rst), now);
        }
    });
    true
}

/// Takes the power away: first no packet leaves any more, then the process goes, then what is in the kernel. False if
/// there was none.
pub(crate) fn power_cut(index: HostIndex) -> bool {
    let (powered, tasks) = wire(|wire| {
        wire.change(
            Time::now(),
            |_, to| to == index,
            |wire| {
                let host = wire.host(index);
                (std::mem::replace(&mut host.powered, false), host.end())
            },
        )
    });
    drop(tasks);
    wire(|wire| {
        wire.clear_kernel(index, Time::now());
        wire.forget_retries(index);
    });
    powered
}

/// Ends all processes.
pub(crate) fn end_all() {
    let tasks: Vec<_> = wire(|wire| wire.hosts.iter_mut().map(Host::end).collect());
    drop(tasks); // not inside: their sockets use the wire
}

/// Freezes the process (SIGSTOP); its kernel continues to acknowledge. False if none is running, or it is frozen already.
pub(crate) fn freeze(index: HostIndex) -> bool {
    wire(|wire| {
        let host = wire.host(index);
        host.running && !std::mem::replace(&mut host.frozen, true)
    })
}

/// Resumes a frozen process; its overdue timers all fire at once. False if it was not frozen.
pub(crate) fn thaw(index: HostIndex) -> bool {
    wire(|wire| {
        let host = wire.host(index);
        let frozen = host.frozen;
        host.wake_parked();
        frozen
    })
}

impl Wire {
    /// The sockets that applications hold on a host.
    pub(crate) fn held_by(&self, host: HostIndex) -> Vec<Flow> {
        let mut sockets = self.pairs.of_host(host);
        sockets.retain(|local| self.half(*local).is_some_and(|half| half.is_held));
        sockets
    }

    /// Gives `process` a socket, which it holds from now on. Returns the tap's name for it.
    pub(crate) fn hold(&mut self, process: Process, local: Flow) -> End {
        let name = process.name(self);
        let pair = self.pairs.get_mut(local.connection).expect("a connection has not ended before it is held");
        pair.half_mut(local.from).is_held = true;
        let (port, peer) = (pair.port, pair.half(local.reversed().from).host);
        let (connection, side) = (local.connection.id, local.from);
        End { connection, side, host: name, boot: process.boot, peer: self.host(peer).name.clone(), port }
    }
}
