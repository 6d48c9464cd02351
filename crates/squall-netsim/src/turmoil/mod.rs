//! The cross-check engine: turmoil's own `Sim`.
//!
//! Every host has a runtime, a clock and a TCP of turmoil's making, and all of them are stepped through every millisecond.
//! The world has a runtime too, outside of the `Sim`, and has its turn at the beginning of each millisecond. Its
//! changes to the hosts are made when its turn is over and before the turn of any host begins, because a `Sim` can neither
//! stop nor start a host from within a runtime. So an instant is the same instant on all of them, though their `Instant`s
//! are not; see [`time`].
//!
//! A packet of turmoil is a whole write, and none is lost unless a fault loses it. turmoil gives its caller few means to
//! interfere, so faults differ from those of the other engine:
//!
//! | fault | on this engine |
//! |---|---|
//! | cut | both ends' streams fail from now on (see `stream`), for turmoil resets nothing |
//! | partition, both ways | everything is held, and comes when it is healed |
//! | partition, one way | everything is lost. A connection on which something was lost stands still, and the receiver has to notice the silence. Connecting is refused at once. |
//! | latency | both ways, because a link has but one; the slower of the two if both were set |
//! | stop | the host is started anew with nothing on it, and refuses and resets |
//! | power cut | partitioned from all others, crashed, and the partition healed, so that no peer is notified. Packets sent to it meanwhile wait until it is back, and are answered by a reset. |
//! | half open, slow drip, freeze, slow consumer | cannot be done |

mod hosts;
mod listener;
mod network;
mod state;
mod stream;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::time::Duration;

use super::panics::PanicWatch;
use super::{Attempt, Connection, End, LatencyRange, Main, Options, Side, Tap, time};
use hosts::Hosts;
use state::host::HostIndex;
use state::{Installed, State, state};

/// The length of a step. No latency is shorter: a message would arrive before it was sent.
const TICK: Duration = Duration::from_millis(1);

/// Runs one simulation to the end of `main`, the task that plays the world, and returns its result. Then every process
/// is ended.
///
/// # Panics
/// If a task of any process panics, if two hosts have one name, and if called from within a simulation.
pub fn simulate<T, F: Future<Output = T>>(options: Options, main: impl FnOnce(Engine) -> F) -> T {
    let Options { seeds, hosts, latency, tap } = options;
    // Streams look into the state when they are dropped, so it outlives everything.
    let _installed = Installed::new(State::new(hosts, latency, tap));
    let panics = PanicWatch::begin();
    let mut hosts = Hosts::new(&seeds);
    let (runtime, root) = super::runtime(&seeds);
    let main = {
        let (_runtime, _root) = (runtime.enter(), root.enter()); // what `main` itself spawns belongs to the world
        main(Engine { thread: PhantomData })
    };
    let mut main = pin!(main);
    loop {
        let turn = async {
            tokio::select! {
                biased; // what is due when a turn is over belongs to the next one, when the hosts have had theirs
                () = tokio::time::sleep(TICK) => None,
                result = &mut main => Some(result),
            }
        };
        if let Some(result) = runtime.block_on(root.run_until(panics.run(turn))) {
            hosts.end();
            return result;
        }
        hosts.step(&panics);
    }
}

/// The controls of a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// Keeps the engine on its thread, which has the state.
    thread: PhantomData<*const ()>,
}

impl Engine {
    fn on<R>(&self, host: &str, f: impl FnOnce(&mut State, HostIndex) -> R) -> R {
        state(|state| {
            let host = state.index(host);
            f(state, host)
        })
    }

    fn between<R>(&self, a: &str, b: &str, f: impl FnOnce(&mut State, HostIndex, HostIndex) -> R) -> R {
        state(|state| {
            let (a, b) = (state.index(a), state.index(b));
            f(state, a, b)
        })
    }
}

impl super::Engine for Engine {
    fn start(&self, host: &str, main: Main) {
        self.on(host, |state, host| state.start(host, main));
    }

    fn boot(&self, host: &str) -> u64 {
        self.on(host, |state, host| state.hosts[host.0].boot())
    }

    fn is_up(&self, host: &str) -> bool {
        self.on(host, |state, host| state.hosts[host.0].is_running())
    }

    fn stop(&self, host: &str) -> bool {
        self.on(host, State::stop)
    }

    fn power_cut(&self, host: &str) -> bool {
        self.on(host, State::power_cut)
    }

    fn connections(&self, a: &str, b: &str) -> Vec<Connection> {
        self.between(a, b, |state, a, b| state.connections(a, b))
    }

    fn cut(&self, connection: &Connection) -> bool {
        state(|state| state.cut(connection.id))
    }

    fn partition(&self, from: &str, to: &str) {
        self.between(from, to, |state, from, to| state.change_link(from, to, |link| link.partitioned = true));
    }

    fn heal(&self, from: &str, to: &str) {
        self.between(from, to, |state, from, to| state.change_link(from, to, |link| link.partitioned = false));
    }

    fn held(&self, from: &str, to: &str) -> u64 {
        self.between(from, to, |state, from, to| state.link(from, to).held)
    }

    fn sent(&self, from: &str, to: &str) -> u64 {
        self.between(from, to, |state, from, to| state.link(from, to).sent)
    }

    fn set_latency(&self, from: &str, to: &str, latency: LatencyRange) {
        self.between(from, to, |state, from, to| state.change_link(from, to, |link| link.latency = Some(latency)));
    }

    fn reset_latency(&self, from: &str, to: &str) {
        self.between(from, to, |state, from, to| state.change_link(from, to, |link| link.latency = None));
    }
}
