//! The faults: what each does to the world, and whether it did anything.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{LatencyRange, SlowReader};
use super::plan::Fault;
use super::world::{REPLICATION_PORT, World};
use crate::protocol::InstanceName;

/// How often a flapping connection is looked at.
const FLAP_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Injects `fault`, waits until it is over and heals it. Tells whether it took effect: a fault that found nothing to
/// disturb does not count.
pub async fn inject(world: Rc<World>, fault: Fault) -> bool {
    let engine = world.engine();
    match fault {
        Fault::Latency { from, to, min_us, max_us, for_ms } => {
            let (from, to) = (from.as_str(), to.as_str());
            let before = engine.sent(from, to);
            engine.set_latency(from, to, LatencyRange { min_us, max_us });
            sleep_ms(for_ms).await;
            engine.reset_latency(from, to);
            engine.sent(from, to) > before
        }
        Fault::Cut { a, b } => {
            let connections = engine.connections(a.as_str(), b.as_str());
            connections.first().is_some_and(|connection| engine.cut(connection))
        }
        Fault::Flap { client, server, after_ms, for_ms } => flap(&world, &client, &server, after_ms, for_ms).await,
        Fault::Partition { from, to, both, for_ms } => {
            let (from, to) = (from.as_str(), to.as_str());
            let ways = if both { vec![(from, to), (to, from)] } else { vec![(from, to)] };
            let held = || ways.iter().map(|(from, to)| engine.held(from, to)).sum::<u64>();
            let before = held();
            ways.iter().for_each(|(from, to)| engine.partition(from, to));
            sleep_ms(for_ms).await;
            ways.iter().for_each(|(from, to)| engine.heal(from, to));
            held() > before
        }
        Fault::PowerCut { host, for_ms } => {
            if !world.claim_down(&host) {
                return false;
            }
            let took_effect = world.power_cut(&host);
            sleep_ms(for_ms).await;
            world.release_down(&host);
            took_effect
        }
        Fault::Restart { host, for_ms } => {
            if !world.claim_down(&host) {
                return false;
            }
            let took_effect = world.stop(&host).await;
            sleep_ms(for_ms).await;
            world.release_down(&host);
            took_effect
        }
        Fault::SlowConsumer { host, bytes, pause_ms, for_ms } => {
            let host = host.as_str();
            let before = engine.slowed(host);
            engine.slow_reader(host, Some(SlowReader { bytes, pause: Duration::from_millis(pause_ms) }));
            sleep_ms(for_ms).await;
            engine.slow_reader(host, None);
            engine.slowed(host) > before
        }
    }
}

/// Ends every fault that is under way.
pub fn heal_all(world: &World) {
    let engine = world.engine();
    engine.heal_all();
    for from in world.instances() {
        engine.slow_reader(from.as_str(), None);
        for to in world.instances() {
            engine.reset_latency(from.as_str(), to.as_str());
        }
    }
}

/// Resets every replication connection from `client` to `server` a while after it was opened.
async fn flap(world: &World, client: &InstanceName, server: &InstanceName, after_ms: u64, for_ms: u64) -> bool {
    let engine = world.engine();
    let end = Instant::now() + Duration::from_millis(for_ms);
    let mut cuts = 0;
    while Instant::now() < end {
        let connections = engine.connections(client.as_str(), server.as_str());
        let mut flapping = connections.iter().filter(|open| open.client.as_ref() == client.as_str());
        match flapping.find(|open| open.port == REPLICATION_PORT) {
            Some(connection) => {
                sleep_ms(after_ms).await;
                cuts += usize::from(engine.cut(connection));
            }
            None => tokio::time::sleep(FLAP_LOOK_INTERVAL).await,
        }
    }
    cuts > 0
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
