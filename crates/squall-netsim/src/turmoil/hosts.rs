//! turmoil's side of all hosts: the `Sim`, and what is done to it between two turns.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ::turmoil::{Builder, Sim};
use rand::Rng;

use super::super::panics::PanicWatch;
use super::TICK;
use super::network::{EPHEMERAL_PORTS, HostNetwork};
use super::state::host::{HostIndex, Order};
use super::state::state;
use super::time;
use squall_env::SeedTree;

/// The most unread writes of a connection, and the most unaccepted connections of a port. One
/// more of these is a panic in turmoil, and an end of file behind exactly so many of those is lost.
const TCP_CAPACITY: usize = 4096;

/// All hosts.
pub(super) struct Hosts {
    sim: Sim<'static>,
    addresses: Vec<IpAddr>,
    now: Duration,
}

impl Hosts {
    /// The hosts of this thread's state, at the beginning. None of them runs anything.
    pub(super) fn new(seeds: &SeedTree) -> Self {
        let sim = Builder::new()
            .tick_duration(TICK)
            .rng_seed(seeds.child("turmoil").rng().next_u64())
            .epoch(SystemTime::UNIX_EPOCH)
            .tcp_capacity(TCP_CAPACITY)
            .ephemeral_ports(EPHEMERAL_PORTS)
            .build();
        let names: Vec<_> = state(|state| state.hosts.iter().map(|host| host.name.clone()).collect());
        let mut hosts = Hosts { sim, addresses: Vec::new(), now: Duration::ZERO };
        time::set(hosts.now);
        for (n, name) in names.iter().enumerate() {
            let (index, address) = (HostIndex(n), hosts.sim.lookup(&**name));
            hosts.sim.host(address, move || software(index));
            hosts.addresses.push(address);
            state(|state| {
                state.hosts[n].address = address;
                state.refit_all(index);
            });
        }
        hosts.refit();
        hosts
    }

    /// Makes the changes that the world ordered in its turn, and gives all hosts theirs.
    ///
    /// # Panics
    /// If a task of any process panics.
    pub(super) fn step(&mut self, panics: &PanicWatch) {
        for order in state(|state| std::mem::take(&mut state.orders)) {
            self.carry_out(order);
        }
        self.refit();
        let stepped = self.sim.step();
        panics.check(); // the software of a host that panicked has ended
        stepped.expect("no software ends");
        self.now += TICK;
        time::set(self.now);
    }

    /// Ends all processes.
    pub(super) fn end(mut self) {
        state(|state| state.end_all());
        for address in &self.addresses {
            self.sim.crash(*address);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Start(process, main) => {
                state(|state| state.hosts[process.host.0].load(process, main));
                self.sim.bounce(self.addresses[process.host.0]);
            }
            Order::Stop(host) => self.sim.bounce(self.addresses[host.0]),
            Order::PowerCut(host) => {
                let address = self.addresses[host.0];
                let others = || self.addresses.iter().copied().filter(|other| *other != address);
                others().for_each(|other| self.sim.partition(address, other));
                self.sim.crash(address);
                others().for_each(|other| self.sim.repair(address, other));
                state(|state| state.refit_all(host));
            }
        }
    }

    fn refit(&self) {
        let changed = state(|state| state.take_changed());
        changed.into_iter().for_each(|between| between.refit(&self.sim));
    }
}

/// Runs on a host whenever turmoil starts it: the process left there, or nothing. It never ends, because turmoil
/// treats a host whose software has ended as down.
fn software(index: HostIndex) -> impl Future<Output = ::turmoil::Result> {
    // At once: a process that is ended before its first turn must not be found by what is started next.
    let main = state(|state| state.hosts[index.0].take_main());
    async {
        if let Some((process, main)) = main {
            main(Rc::new(HostNetwork::new(process))).await;
        }
        std::future::pending().await
    }
}
