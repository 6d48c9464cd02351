//! The engine's own state, and the changes that turmoil has yet to make.
//!
//! One thread-local, for streams must be `Send` and reach it from their `Drop`, and because code inside a process cannot
//! reach the `Sim` while it steps.

pub(super) mod connection;
pub(super) mod host;
pub(super) mod link;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use connection::Held;
use host::{Host, HostIndex, Order, Process};
use link::Link;

use super::super::{End, LatencyRange, Side, Tap};

/// The engine's own state.
pub(super) struct State {
    pub hosts: Vec<Host>,
    pub names: BTreeMap<Arc<str>, HostIndex>,
    pub tap: Rc<dyn Tap>,
    /// The latency of every link that has none of its own.
    pub latency: LatencyRange,
    /// One per pair of hosts, ordered by sender first.
    pub links: Vec<Link>,
    /// Pairs of hosts whose links turmoil has yet to change.
    pub changed: BTreeSet<(HostIndex, HostIndex)>,
    /// The changes to hosts that turmoil has yet to make, in this order.
    pub orders: Vec<Order>,
    /// Attempts so far.
    pub attempts: u64,
    /// Connections by their client's address, from the dialling until the server accepts.
    pub dialled: BTreeMap<SocketAddr, u64>,
    /// Connections one of whose ends at least an application holds.
    pub held: BTreeMap<u64, Held>,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// Runs `f` on this thread's state. Neither turmoil nor the tap may be called inside.
pub(super) fn state<R>(f: impl FnOnce(&mut State) -> R) -> R {
    try_state(f).expect("only used inside a simulation")
}

/// The same for `Drop` implementations, which may run when the simulation is over.
pub(super) fn try_state<R>(f: impl FnOnce(&mut State) -> R) -> Option<R> {
    STATE.with(|state| state.borrow_mut().as_mut().map(f))
}

/// The run's tap, to be called while the state is free.
pub(super) fn tap() -> Rc<dyn Tap> {
    state(|state| Rc::clone(&state.tap))
}

/// The state of this thread, until it is dropped.
pub(super) struct Installed;

impl Installed {
    /// Installs it.
    ///
    /// # Panics
    /// If this thread is simulating already.
    pub(super) fn new(state: State) -> Self {
        let before = STATE.replace(Some(state));
        assert!(before.is_none(), "a simulation within a simulation");
        Installed
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        drop(STATE.take());
    }
}

impl State {
    /// Hosts of these names, none of which runs anything.
    pub(super) fn new(names: Vec<Arc<str>>, latency: LatencyRange, tap: Rc<dyn Tap>) -> Self {
        let hosts: Vec<Host> = names.into_iter().map(Host::new).collect();
        let name = |(n, host): (usize, &Host)| (host.name.clone(), HostIndex(n));
        let names: BTreeMap<_, _> = hosts.iter().enumerate().map(name).collect();
        assert_eq!(names.len(), hosts.len(), "every host has a name of its own");
        State {
            links: vec![Link::default(); hosts.len() * hosts.len()],
            hosts,
            names,
            tap,
            latency,
            changed: BTreeSet::new(),
            orders: Vec::new(),
            attempts: 0,
            dialled: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// The host called `name`.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn index(&self, name: &str) -> HostIndex {
        *self.names.get(name).unwrap_or_else(|| panic!("no host is called {name}"))
    }

    /// The tap's name for the end of connection `id` that `process` holds, with `peer` at the other end.
    pub(super) fn end(&self, process: Process, peer: HostIndex, id: u64, side: Side, port: u16) -> End {
        let name = |host: HostIndex| self.hosts[host.0].name.clone();
        End { connection: id, side, host: name(process.host), boot: process.boot, peer: name(peer), port }
    }
}
