//! A simulated machine and the process on it.
//!
//! The process is turmoil's: all of it is dropped when the host is crashed or started anew. Before that its boot is over
//! here, so that the work of its drop handlers is not reported.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::State;
use crate::Main;

/// A host's number: its place in [`Options::hosts`](crate::Options::hosts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostIndex(pub usize);

/// A simulated machine.
pub(crate) struct Host {
    pub name: Arc<str>,
    /// As turmoil has given it.
    pub address: IpAddr,
    /// Connections dialled so far, by all its processes. turmoil gives each the next port.
    pub dials: u16,
    powered: bool,
    running: bool,
    boot: u64,
    /// The process that turmoil runs when it starts the host.
    main: Option<(Process, Main)>,
}

/// One boot of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub host: HostIndex,
    pub boot: u64,
}

/// A change to a host that turmoil has yet to make.
pub(crate) enum Order {
    /// Start a process.
    Start(Process, Main),
    /// End the process; the kernel stays.
    Stop(HostIndex),
    /// Take the power away.
    PowerCut(HostIndex),
}

impl Host {
    /// A machine that is on, with no process.
    pub(crate) fn new(name: Arc<str>) -> Self {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Host { name, address, dials: 0, powered: true, running: false, boot: 0, main: None }
    }

    /// Returns true if a process runs on it.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// The number of processes started on it so far.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Takes the process that turmoil is about to run on the host.
    pub(crate) fn take_main(&mut self) -> Option<(Process, Main)> {
        self.main.take()
    }

    /// Leaves `main` for turmoil, which is about to start the host.
    pub(crate) fn load(&mut self, process: Process, main: Main) {
        self.main = Some((process, main));
    }
}

impl State {
    /// Returns true if `process` has not ended.
    pub(crate) fn is_alive(&self, process: Process) -> bool {
        let host = &self.hosts[process.host.0];
        host.running && host.boot == process.boot
    }

    /// Begins a new boot of a host.
    ///
    /// # Panics
    /// If a process is running on the host.
    pub(crate) fn start(&mut self, index: HostIndex, main: Main) {
        let host = &mut self.hosts[index.0];
        assert!(!host.running, "a process is already running on {}", host.name);
        (host.powered, host.running) = (true, true);
        host.boot += 1;
        let process = Process { host: index, boot: host.boot };
        self.orders.push(Order::Start(process, main));
    }

    /// Ends the process on a host. False if there is none.
    pub(crate) fn stop(&mut self, index: HostIndex) -> bool {
        let stopped = std::mem::take(&mut self.hosts[index.0].running);
        if stopped {
            self.orders.push(Order::Stop(index));
        }
        stopped
    }

    /// Cuts the power of a host. False if it has none.
    pub(crate) fn power_cut(&mut self, index: HostIndex) -> bool {
        let host = &mut self.hosts[index.0];
        host.running = false;
        let powered = std::mem::take(&mut host.powered);
        if powered {
            self.orders.push(Order::PowerCut(index));
        }
        powered
    }

    /// Ends every process.
    pub(crate) fn end_all(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.running = false);
    }
}
