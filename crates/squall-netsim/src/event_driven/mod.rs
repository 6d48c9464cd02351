//! The event-driven engine.
//!
//! All hosts share one paused, current-thread Tokio runtime, whose clock jumps to the next timer when nothing is
//! runnable: quiet time costs nothing. Each host has a network stack with the states of TCP, and no clock of its own: the
//! `driver` decides when each packet arrives, and so its fate is entirely ours. Stepping every host every simulated
//! millisecond instead costs about a hundred times as much when hosts talk every few seconds.
//!
//! A packet is never lost, only late, which is what retransmission makes of a lost one. That one fact shapes the rest: see
//! `flow` and `ending`.

mod driver;
mod listener;
mod network;
mod seam;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::marker::PhantomData;

use crate::time::Time;

pub use network::HostNetwork;
pub use wire::flow::RETRY_MAX;

use super::panics::PanicWatch;
use super::{Attempt, Connection, End, LatencyRange, Options, SlowReader, Tap, time};
use driver::Driver;
use wire::agenda::Task;
use wire::host::{self, Host, HostTask};
use wire::link::Link;
use wire::segment::HostIndex;
use wire::{Wire, wire};

/// Runs one simulation to the end of `main`, the task that plays the world, and returns its result. Then every process
/// is ended. The latencies of the link from `a` to `b` are drawn from `latency` / `a>b` of the options' seeds.
///
/// All state belongs to the thread: any number of simulations may run on as many threads, and one after the other on
/// one.
///
/// # Panics
/// If a task of any process panics, if two hosts have one name, and if called from within a simulation.
pub fn simulate<T, F: Future<Output = T>>(options: Options, main: impl FnOnce(Engine) -> F) -> T {
    let (runtime, root) = super::runtime(&options.seeds);
    let installed = Installed::new(options);
    let panics = PanicWatch::begin();
    let simulation = async {
        time::begin();
        let hosts = wire(|wire| {
            wire.agenda.push(Time::now(), Task::Keepalive);
            wire.hosts.len()
        });
        for index in 0..hosts {
            tokio::task::spawn_local(HostTask(HostIndex(index as u16)));
        }
        tokio::task::spawn_local(Driver::new());
        let result = main(Engine { thread: PhantomData }).await;
        host::end_all(); // while the simulated clock still runs, for tasks that tell the time when dropped
        result
    };
    let result = runtime.block_on(root.run_until(panics.run(simulation)));
    drop(root);
    drop(runtime);
    drop(installed);
    result
}

/// The wire of this thread. It must outlast the tasks and the runtime, whose sockets close through it, on a panic too.
struct Installed;

impl Installed {
    fn new(options: Options) -> Self {
        let Options { seeds, hosts, latency, tap } = options;
        let hosts = hosts.into_iter().map(Host::new).collect();
        let before = wire::install(Some(Wire::new(hosts, seeds.child("latency"), latency, tap)));
        assert!(before.is_none(), "a simulation is running on this thread");
        Installed
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        host::end_all();
        drop(wire::install(None));
    }
}

/// The controls of a simulation: starts processes and injects faults. For use outside the processes.
///
/// A method that takes the name of a host panics if no host has that name.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// Keeps the engine on its thread, which has the state.
    thread: PhantomData<*const ()>,
}

impl Engine {
    /// Starts a process on `host`, with the power on: a new boot. When `main` ends, the process stays up, idle.
    ///
    /// # Panics
    /// If a process is already running there.
    pub fn start<F>(&self, host: &str, main: impl FnOnce(HostNetwork) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        host::start(index(host), |process| main(HostNetwork::new(process)));
    }

    /// The number of processes started on `host` so far, which is the number of the present or last one.
    pub fn boot(&self, host: &str) -> u64 {
        on(host, |host| host.boot())
    }

    /// Returns true if a process is running on `host`, frozen or not.
    pub fn is_up(&self, host: &str) -> bool {
        on(host, |host| host.is_running())
    }

    /// Returns true if the process on `host` is frozen.
    pub fn is_frozen(&self, host: &str) -> bool {
        on(host, |host| host.is_frozen())
    }

    /// Ends the process on `host`; the kernel stays. Peers read end of file, or a reset where bytes lay unread, and
    /// ports refuse. False if there was no process.
    pub fn stop(&self, host: &str) -> bool {
        host::stop(index(host))
    }

    /// Cuts the power of `host`: peers hear nothing more until it starts again, and new connections time out. False
    /// if there was no power.
    pub fn power_cut(&self, host: &str) -> bool {
        host::power_cut(index(host))
    }

    /// Freezes the process on `host` (SIGSTOP); its kernel continues to accept and acknowledge. False if no process was
    /// running, or it was frozen already.
    pub fn freeze(&self, host: &str) -> bool {
        host::freeze(index(host))
    }

    /// Resumes a frozen process; its overdue timers all fire at once. False if it was not frozen.
    pub fn thaw(&self, host: &str) -> bool {
        host::thaw(index(host))
    }

    /// The connections between `a` and `b`, in either direction, that are open at both ends, oldest first.
    pub fn connections(&self, a: &str, b: &str) -> Vec<Connection> {
        let (a, b) = (index(a), index(b));
        wire(|wire| wire.connections(a, b))
    }

    /// The connections from `client` to `port` of `server` that are open at both ends, oldest first.
    pub fn connections_to(&self, client: &str, server: &str, port: u16) -> Vec<Connection> {
        let (client, server) = (index(client), index(server));
        wire(|wire| wire.connections_to(client, server, port))
    }

    /// Resets both ends of a connection at once. False if it was not open any more.
    pub fn cut(&self, connection: &Connection) -> bool {
        wire(|wire| wire.cut(connection, Time::now()))
    }

    /// Ends one end of a connection: the application on `gone` reads a reset, and the other end is not notified. Packets
    /// from the other end are dropped without notice from now on, until [`answer`](Self::answer). Its kernel sends them
    /// again and does not give up: Linux does after some 15 minutes, past the end of any run. False if the connection was
    /// not open any more.
    ///
    /// # Panics
    /// If the connection has no end on `gone`.
    pub fn half_open(&self, connection: &Connection, gone: &str) -> bool {
        let gone = index(gone);
        wire(|wire| wire.half_open(connection, gone, Time::now()))
    }

    /// Answers the packets of a half-open connection with a reset, from now on.
    pub fn answer(&self, connection: &Connection) {
        wire(|wire| wire.answer(connection));
    }

    /// Lets the packets that `from` sends on a connection wait, until [`release`](Self::release). False if the connection was
    /// not open any more.
    ///
    /// # Panics
    /// If the connection has no end on `from`.
    pub fn stall(&self, connection: &Connection, from: &str) -> bool {
        assert!([&connection.client, &connection.server].iter().any(|end| ***end == *from), "no end is on {from}");
        let from = index(from);
        wire(|wire| wire.stall(connection, from, Time::now()))
    }

    /// Has the packets that waited arrive now. Returns their number.
    pub fn release(&self, connection: &Connection) -> usize {
        wire(|wire| wire.release(connection, Time::now()))
    }

    /// Lets nothing through from one host to another. After a short partition everything arrives late, complete and in
    /// order. In a long one, a process that waits for an acknowledgement fails with `TimedOut`, and the other end stays half
    /// open.
    pub fn partition(&self, from: &str, to: &str) {
        let (from, to) = (index(from), index(to));
        wire(|wire| wire.partition(from, to, Time::now()));
    }

    /// Ends a partition. What it held is tried again within two seconds.
    pub fn heal(&self, from: &str, to: &str) {
        link(from, to, |link| link.partitioned = false);
    }

    /// Ends all partitions.
    pub fn heal_all(&self) {
        wire(|wire| wire.links.in_use().for_each(|link| link.partitioned = false));
    }

    /// The number of packets from one host to another that have met a partition so far: above zero, the fault took effect.
    pub fn held(&self, from: &str, to: &str) -> u64 {
        link(from, to, |link| link.held)
    }

    /// The number of packets that have left one host for another so far.
    pub fn sent(&self, from: &str, to: &str) -> u64 {
        link(from, to, |link| link.sent)
    }

    /// Sets the latency of packets from one host to another, from now on.
    pub fn set_latency(&self, from: &str, to: &str, latency: LatencyRange) {
        link(from, to, |link| link.latency = latency);
    }

    /// Resets that latency to [`Options::latency`].
    pub fn reset_latency(&self, from: &str, to: &str) {
        let usual = wire(|wire| wire.links.latency);
        link(from, to, |link| link.latency = usual);
    }

    /// Limits the traffic from one host to another, in bytes a second, headers included. When a limit is lifted, the packets
    /// that waited for it arrive at the usual speed.
    pub fn set_bandwidth(&self, from: &str, to: &str, bytes_per_sec: Option<u64>) {
        let (from, to) = (index(from), index(to));
        wire(|wire| wire.set_bandwidth(from, to, bytes_per_sec, Time::now()));
    }

    /// Makes the process on `host` read slowly from each of its streams; the kernel's window does the rest.
    pub fn slow_reader(&self, host: &str, slow: Option<SlowReader>) {
        on(host, |host| host.slow_reader = slow);
    }

    /// The number of reads on `host` cut short because it reads slowly: above zero, the fault took effect.
    pub fn slowed(&self, host: &str) -> u64 {
        on(host, |host| host.slowed)
    }
}

fn index(host: &str) -> HostIndex {
    wire(|wire| wire.names.get(host).copied()).unwrap_or_else(|| panic!("no host is called {host}"))
}

fn on<R>(host: &str, f: impl FnOnce(&mut Host) -> R) -> R {
    let host = index(host);
    wire(|wire| f(wire.host(host)))
}

fn link<R>(from: &str, to: &str, f: impl FnOnce(&mut Link) -> R) -> R {
    let (from, to) = (index(from), index(to));
    wire(|wire| f(wire.links.get(from, to)))
}
