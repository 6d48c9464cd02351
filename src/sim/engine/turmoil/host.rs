//! A simulated machine and the process on it.
//!
//! The process is turmoil's: all of it is dropped when the host is crashed or started anew. Before that its boot is over
//! here, so that nothing is told of what its drop handlers do.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use super::Main;
use super::network::HostNetwork;
use super::state::{State, state};

/// A host's number: its place in [`Options::hosts`](crate::sim::engine::Options::hosts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostIndex(pub usize);

/// A simulated machine.
pub(super) struct Host {
    pub name: Arc<str>,
    /// As turmoil has given it.
    pub address: IpAddr,
    /// Connections dialled so far, by all its processes. turmoil gives each the next port.
    pub dials: u16,
    powered: bool,
    running: bool,
    boot: u64,
    /// What turmoil finds to run when it starts the host.
    main: Option<(Process, Main)>,
}

/// One boot of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub host: HostIndex,
    pub boot: u64,
}

/// What the world wants turmoil to do to a host.
pub(super) enum Order {
    /// Start a process.
    Start(Process, Main),
    /// End the process; the kernel stays.
    Stop(HostIndex),
    /// Take the power away.
    PowerCut(HostIndex),
}

impl Host {
    /// A machine that is on, with no process.
    pub fn new(name: Arc<str>) -> Self {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Host { name, address, dials: 0, powered: true, running: false, boot: 0, main: None }
    }

    /// Whether a process runs on it.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// How many processes were started on it.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Leaves `main` for turmoil, which is about to start the host.
    pub fn load(&mut self, process: Process, main: Main) {
        self.main = Some((process, main));
    }
}

impl State {
    /// Whether `process` has not ended.
    pub fn is_alive(&self, process: Process) -> bool {
        let host = &self.hosts[process.host.0];
        host.running && host.boot == process.boot
    }

    /// A new boot of a host begins.
    ///
    /// # Panics
    /// If a process is running on the host.
    pub fn start(&mut self, index: HostIndex, main: Main) {
        let host = &mut self.hosts[index.0];
        assert!(!host.running, "a process is already running on {}", host.name);
        (host.powered, host.running) = (true, true);
        host.boot += 1;
        let process = Process { host: index, boot: host.boot };
        self.orders.push(Order::Start(process, main));
    }

    /// The process on a host ends. False if there is none.
    pub fn stop(&mut self, index: HostIndex) -> bool {
        let stopped = std::mem::take(&mut self.hosts[index.0].running);
        if stopped {
            self.orders.push(Order::Stop(index));
        }
        stopped
    }

    /// A host loses its power. False if it has none.
    pub fn power_cut(&mut self, index: HostIndex) -> bool {
        let host = &mut self.hosts[index.0];
        host.running = false;
        let powered = std::mem::take(&mut host.powered);
        if powered {
            self.orders.push(Order::PowerCut(index));
        }
        powered
    }

    /// Every process is over.
    pub fn end_all(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.running = false);
    }
}

/// What turmoil runs on a host, whenever it starts it: what was left there, or nothing. It never ends, because turmoil
/// takes a host whose software has ended for down.
pub(super) fn software(index: HostIndex) -> impl Future<Output = ::turmoil::Result> {
    // At once: a process that is ended before its first turn must not be found by what is started next.
    let main = state(|state| state.hosts[index.0].main.take());
    async {
        if let Some((process, main)) = main {
            main(Rc::new(HostNetwork::new(process))).await;
        }
        std::future::pending().await
    }
}
