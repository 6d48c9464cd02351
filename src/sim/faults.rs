//! The faults: what each does to the world, and whether it did anything.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::database::faults::{Scope, Trouble};
use super::engine::{Cannot, LatencyRange, SlowReader};
use super::plan::{BROKER, Fault};
use super::world::{BROKER_PORT, HTTP_PORT, REPLICATION_PORT, World};
use crate::judge::Observation;
use crate::protocol::InstanceName;
use crate::streams::SOURCES;

/// How often requests are looked at: they are soon over.
const REQUEST_LOOK_INTERVAL: Duration = Duration::from_millis(3);
/// How often a flapping connection is looked at.
const FLAP_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Injects `fault`, waits until it is over, or until the storm ends at `end`, and heals it. Tells whether it took
/// effect: a fault that found nothing to disturb does not count.
///
/// # Errors
/// The engine cannot inject it.
pub async fn inject(world: Rc<World>, fault: Fault, end: Instant) -> Result<bool, Cannot> {
    let engine = world.engine();
    let until = (Instant::now() + Duration::from_millis(fault.for_ms())).min(end);
    Ok(match fault {
        Fault::Latency { from, to, min_us, max_us, .. } => {
            let before = engine.sent(&from, &to);
            engine.set_latency(&from, &to, LatencyRange { min_us, max_us });
            sleep_until(until).await;
            engine.reset_latency(&from, &to);
            engine.sent(&from, &to) > before
        }
        Fault::Cut { a, b } => {
            let connections = engine.connections(&a, &b);
            connections.first().is_some_and(|connection| engine.cut(connection))
        }
        Fault::LostReply { server, after_ms, .. } => {
            lose_replies(&world, &server, Duration::from_millis(after_ms), until).await
        }
        Fault::Flap { client, server, after_ms, .. } => {
            flap(&world, &client, &server, Duration::from_millis(after_ms), until).await
        }
        Fault::Partition { from, to, both, .. } => {
            let ways = if both { vec![(&from, &to), (&to, &from)] } else { vec![(&from, &to)] };
            let held = || ways.iter().map(|(from, to)| engine.held(from, to)).sum::<u64>();
            let before = held();
            ways.iter().for_each(|(from, to)| engine.partition(from, to));
            sleep_until(until).await;
            ways.iter().for_each(|(from, to)| engine.heal(from, to));
            held() > before
        }
        Fault::HalfOpen { gone, survivor, .. } => {
            let Some(connection) = engine.half_open(&gone, &survivor, replication_port(&gone, &survivor))? else {
                return Ok(false);
            };
            world.recorder().observe(&Observation::HalfOpened { survivor: survivor.into(), attempt: connection.id });
            sleep_until(until).await;
            if until < end {
                engine.answer(&connection)?;
            } // else nobody ever tells the survivor: the calm waits for its pings
            true
        }
        Fault::SlowDrip { from, to, bytes_per_sec, .. } => {
            let before = engine.sent(&from, &to);
            engine.set_bandwidth(&from, &to, Some(bytes_per_sec))?;
            sleep_until(until).await;
            engine.set_bandwidth(&from, &to, None)?;
            engine.sent(&from, &to) > before
        }
        Fault::PowerCut { host, .. } => {
            let host = host.into();
            if !world.claim_down(&host) {
                return Ok(false);
            }
            let took_effect = world.power_cut(&host);
            sleep_until(until).await;
            world.release_down(&host);
            took_effect
        }
        Fault::Restart { host, .. } => restart(&world, &host.into(), until).await,
        Fault::RollingRestart { hosts, down_ms, pause_ms } => {
            let (down, pause) = (Duration::from_millis(down_ms), Duration::from_millis(pause_ms));
            rolling_restart(&world, hosts, down, pause, end).await
        }
        Fault::Freeze { host, .. } => {
            let boot = engine.boot(&host);
            if !engine.freeze(&host)? {
                return Ok(false);
            }
            if host != BROKER {
                world.recorder().observe(&Observation::Frozen { instance: host.as_str().into() });
            }
            sleep_until(until).await;
            // Another fault may have ended it, and yet another frozen the next one.
            if engine.boot(&host) == boot {
                if host != BROKER {
                    world.recorder().observe(&Observation::Thawed { instance: host.as_str().into() });
                }
                engine.thaw(&host)?;
            }
            true
        }
        Fault::SlowConsumer { host, bytes, pause_ms, .. } => {
            let before = engine.slowed(&host);
            engine.slow_reader(&host, Some(SlowReader { bytes, pause: Duration::from_millis(pause_ms) }))?;
            sleep_until(until).await;
            engine.slow_reader(&host, None)?;
            engine.slowed(&host) > before
        }
        Fault::SlowWriter { host, delay_ms_min, delay_ms_max, rollback_per_mille, .. } => {
            let trouble = Trouble::SlowWriter { delay_ms: delay_ms_min..=delay_ms_max, rollback_per_mille };
            trouble_database(&world, Some(host), trouble, until).await
        }
        Fault::SlowDatabase { host, extra_ms_min, extra_ms_max, .. } => {
            let trouble = Trouble::Slow { extra_ms: extra_ms_min..=extra_ms_max };
            trouble_database(&world, host, trouble, until).await
        }
        Fault::StalledDatabase { host, .. } => trouble_database(&world, host, Trouble::Stalled, until).await,
        Fault::FailingDatabase { host, per_mille, .. } => {
            let trouble = Trouble::Failing { scope: Scope::All, per_mille };
            trouble_database(&world, Some(host), trouble, until).await
        }
        Fault::FailingHandlers { host, per_mille, .. } => {
            let trouble = Trouble::Failing { scope: Scope::Updates, per_mille };
            trouble_database(&world, Some(host), trouble, until).await
        }
        Fault::LostAcknowledgement { host, per_mille, .. } => {
            trouble_database(&world, Some(host), Trouble::LostAcknowledgement { per_mille }, until).await
        }
        Fault::BrokenStream { host, stream } => {
            let source = SOURCES.iter().find(|source| source.name == stream).expect("the plan was checked");
            let broken = world.break_stream(&host.into(), source);
            sleep_until(end).await;
            broken.hits() > 0
        }
        Fault::Strangers { host, per_mille, .. } => {
            let strangers = world.strangers(&host.into()).begin(per_mille);
            sleep_until(until).await;
            strangers.hits() > 0
        }
        Fault::CancelledRequests { host, per_mille, .. } => {
            let cancelling = world.cancellations(&host.into()).begin(per_mille);
            sleep_until(until).await;
            cancelling.cancelled() > 0
        }
    })
}

/// Stops an instance gracefully, unless it is down already, and starts it again at `until`, or when it has stopped if it
/// takes longer.
async fn restart(world: &World, host: &InstanceName, until: Instant) -> bool {
    if !world.claim_down(host) {
        return false;
    }
    let took_effect = world.stop(host).await;
    sleep_until(until).await;
    world.release_down(host);
    took_effect
}

/// Restarts one host after the other, as long as the storm lasts. True if at least one was there to be stopped.
async fn rolling_restart(world: &World, hosts: Vec<String>, down: Duration, pause: Duration, end: Instant) -> bool {
    let mut restarted = 0;
    for host in hosts {
        let now = Instant::now();
        if now >= end {
            break;
        }
        restarted += usize::from(restart(world, &host.into(), (now + down).min(end)).await);
        sleep_until((Instant::now() + pause).min(end)).await;
    }
    restarted > 0
}

/// Lets `host`, or everybody, have trouble with the database. Tells whether any transaction met it.
async fn trouble_database(world: &World, host: Option<String>, trouble: Trouble, until: Instant) -> bool {
    let is_meant = |name: &&InstanceName| host.as_deref().is_none_or(|host| name.as_str() == host);
    let hosts = world.instances().iter().filter(is_meant);
    let begun: Vec<_> = hosts.map(|name| world.database_faults(name).begin(trouble.clone())).collect();
    sleep_until(until).await;
    begun.iter().any(|fault| fault.hits() > 0)
}

/// The port on which rows come between two hosts.
fn replication_port(one: &str, other: &str) -> u16 {
    if [one, other].contains(&BROKER) { BROKER_PORT } else { REPLICATION_PORT }
}

/// Resets every replication connection from `client` to `server` a while after it was opened.
async fn flap(world: &World, client: &str, server: &str, after: Duration, until: Instant) -> bool {
    let engine = world.engine();
    let mut cuts = 0;
    while Instant::now() < until {
        let connections = engine.connections(client, server);
        let mut flapping = connections.iter().filter(|open| &*open.client == client);
        match flapping.find(|open| open.port == replication_port(client, server)) {
            Some(connection) => {
                tokio::time::sleep(after).await;
                cuts += usize::from(engine.cut(connection));
            }
            None => tokio::time::sleep(FLAP_LOOK_INTERVAL).await,
        }
    }
    cuts > 0
}

/// Resets every HTTP connection to `server` a while after it was opened.
async fn lose_replies(world: &World, server: &str, after: Duration, until: Instant) -> bool {
    let engine = world.engine();
    let clients = || world.instances().iter().filter(|client| client.as_str() != server);
    let mut cuts = 0;
    while Instant::now() < until {
        let open: Vec<_> = clients().flat_map(|client| engine.connections(client.as_str(), server)).collect();
        let requests: Vec<_> = open.iter().filter(|open| &*open.server == server && open.port == HTTP_PORT).collect();
        if !requests.is_empty() {
            tokio::time::sleep(after).await;
            cuts += requests.into_iter().filter(|request| engine.cut(request)).count();
        }
        tokio::time::sleep(REQUEST_LOOK_INTERVAL).await;
    }
    cuts > 0
}

#[cfg(test)]
mod tests;
