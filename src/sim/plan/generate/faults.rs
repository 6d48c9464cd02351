//! Drawing faults.
//!
//! Each family draws its rate for the plan, then each of its faults by ordinal. What one fault takes from a target, the
//! target is left alone for a while afterwards: without such stability windows nothing is ever set up and the storm
//! only ever tests the first second of a connection.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::{BROKER, DELAY_MS_MAX, Deployment, Family, Fault, FaultEntry};
use crate::env::Chance;

/// When the first fault may come: by then every instance has started.
const FIRST_MS: u64 = 2_000;
/// How long before the end of the storm the last fault may come.
const LAST_BEFORE_END_MS: u64 = 2_000;
/// How long a target is left alone by a family after one of its faults is over.
const STABLE_MS: u64 = 1_000;
/// Within a stretch of this length a host is taken down either by power cuts or by restarts, never by both.
const OUTAGE_STRETCH_MS: u64 = 10_000;

/// The faults of `families`, in order of time.
pub(super) fn draw(chance: &Chance, families: &[Family], deployment: &Deployment, storm_ms: u64) -> Vec<FaultEntry> {
    let of_family = |family: &Family| draw_family(&chance.of(family), *family, deployment, storm_ms);
    let mut faults: Vec<FaultEntry> = families.iter().flat_map(of_family).collect();
    faults.sort_by_key(|entry| entry.at_ms);
    faults
}

fn draw_family(chance: &Chance, family: Family, deployment: &Deployment, storm_ms: u64) -> Vec<FaultEntry> {
    let count = chance.rng().random_range(count(family));
    let mut faults: Vec<FaultEntry> = (0..count)
        .filter_map(|ordinal| {
            let mut rng = chance.of(ordinal).rng();
            let at_ms = rng.random_range(FIRST_MS..storm_ms - LAST_BEFORE_END_MS);
            let fault = draw_fault(&mut rng, family, deployment, at_ms, storm_ms)?;
            Some(FaultEntry { at_ms, fault })
        })
        .collect();
    faults.sort_by_key(|entry| entry.at_ms);

    let mut stable_at: BTreeMap<String, u64> = BTreeMap::new();
    faults.retain(|entry| {
        let target = entry.fault.hosts().join(" ");
        let is_stable = stable_at.get(&target).is_none_or(|at_ms| *at_ms <= entry.at_ms);
        if is_stable {
            stable_at.insert(target, entry.at_ms + entry.fault.for_ms() + STABLE_MS);
        }
        is_stable
    });
    faults
}

/// How many faults of a family a plan of one minute holds, if it holds any.
fn count(family: Family) -> RangeInclusive<u32> {
    match family {
        Family::Cut => 4..=30,
        Family::Latency | Family::Partition | Family::SlowConsumer => 3..=24,
        Family::Flap => 3..=20,
        Family::LostReply => 3..=22,
        Family::HalfOpen | Family::SlowDrip | Family::Freeze => 3..=20,
        Family::PowerCut | Family::Restart => 4..=28,
        // Each takes down everybody; most do not fit.
        Family::RollingRestart => 2..=6,
        Family::SlowWriter
        | Family::SlowDatabase
        | Family::StalledDatabase
        | Family::FailingDatabase
        | Family::FailingHandlers
        | Family::LostAcknowledgement
        | Family::CancelledRequests => 2..=8,
        Family::BrokenStream => 0..=1,
        Family::Strangers => 2..=10,
    }
}

/// None if there is no room for it at that time.
fn draw_fault(
    rng: &mut ChaCha8Rng,
    family: Family,
    deployment: &Deployment,
    at_ms: u64,
    storm_ms: u64,
) -> Option<Fault> {
    let fault = match family {
        Family::Latency => {
            let (from, to) = either_way(rng, deployment);
            let min_us = rng.random_range(1_000..=20_000);
            let max_us = min_us + rng.random_range(0..=300_000);
            Fault::Latency { from, to, min_us, max_us, for_ms: rng.random_range(500..=8_000) }
        }
        Family::Cut => {
            let (a, b) = client_and_server(rng, deployment);
            Fault::Cut { a, b }
        }
        Family::Flap => {
            let (client, server) = client_and_server(rng, deployment);
            // From before the first line is read until well after set-up.
            let after_ms = [1, 2, 5, 10, 20, 50, 100, 300, 1_000][rng.random_range(0..9)];
            Fault::Flap { client, server, after_ms, for_ms: rng.random_range(2_000..=15_000) }
        }
        Family::LostReply => Fault::LostReply {
            server: pick(rng, deployment.writers()),
            after_ms: [2, 5, 10, 20, 50, 100, 300][rng.random_range(0..7)],
            for_ms: rng.random_range(1_000..=6_000),
        },
        Family::Partition => {
            let (from, to) = either_way(rng, deployment);
            let both = rng.random_ratio(3, 5);
            // Long ones outlast the sender's patience and the receiver's pings.
            let is_long = rng.random_ratio(1, 5);
            let for_ms = if is_long { rng.random_range(5_000..=30_000) } else { rng.random_range(100..=3_000) };
            Fault::Partition { from, to, both, for_ms }
        }
        Family::HalfOpen => {
            let (gone, survivor) = either_way(rng, deployment);
            // Long ones outlast the pings' patience. After short ones the survivor is reset instead.
            let is_long = rng.random_ratio(1, 2);
            let for_ms = if is_long { rng.random_range(25_000..=40_000) } else { rng.random_range(100..=20_000) };
            Fault::HalfOpen { gone, survivor, for_ms }
        }
        Family::SlowDrip => {
            let (from, to) = either_way(rng, deployment);
            let bytes_per_sec = [200, 500, 1_000, 2_000, 5_000][rng.random_range(0..5)];
            // Long ones outlast the time-out of a request, or even the pings' patience.
            let is_long = rng.random_ratio(1, 5);
            let for_ms = if is_long { rng.random_range(8_000..=30_000) } else { rng.random_range(500..=8_000) };
            Fault::SlowDrip { from, to, bytes_per_sec, for_ms }
        }
        Family::PowerCut | Family::Restart => {
            let host = outage_host(rng, family, deployment, at_ms);
            let is_long = rng.random_ratio(1, 6);
            let for_ms = if is_long { rng.random_range(2_500..=7_000) } else { rng.random_range(50..=2_500) };
            if at_ms % OUTAGE_STRETCH_MS + for_ms + STABLE_MS > OUTAGE_STRETCH_MS {
                return None;
            }
            if family == Family::Restart { Fault::Restart { host, for_ms } } else { Fault::PowerCut { host, for_ms } }
        }
        Family::RollingRestart => {
            let hosts: Vec<String> = deployment.hosts().map(str::to_owned).collect();
            let (down_ms, pause_ms) = (rng.random_range(50..=2_500), rng.random_range(0..=3_000));
            let fault = Fault::RollingRestart { hosts, down_ms, pause_ms };
            if at_ms + fault.for_ms() > storm_ms {
                return None;
            }
            fault
        }
        Family::Freeze => {
            let host = host_or_broker(rng, deployment);
            // Long ones outlast the pings' patience, then requests' and stops'.
            let for_ms = match rng.random_range(0..10) {
                0..5 => rng.random_range(50..=2_000),
                5..8 => rng.random_range(2_000..=12_000),
                _ => rng.random_range(20_000..=35_000),
            };
            Fault::Freeze { host, for_ms: for_ms.min(storm_ms - at_ms) }
        }
        Family::SlowConsumer => Fault::SlowConsumer {
            host: host_or_broker(rng, deployment),
            bytes: 1 << rng.random_range(5..=12),
            pause_ms: rng.random_range(5..=200),
            for_ms: rng.random_range(1_000..=8_000),
        },
        Family::SlowWriter => {
            let delay_ms_min = rng.random_range(500..=2_000);
            Fault::SlowWriter {
                host: rows_writer(rng, deployment),
                delay_ms_min,
                delay_ms_max: rng.random_range(delay_ms_min + 500..=DELAY_MS_MAX),
                rollback_per_mille: [0, 50, 200][rng.random_range(0..3)],
                for_ms: rng.random_range(1_000..=10_000),
            }
        }
        Family::SlowDatabase => {
            let host = host_or_all(rng, deployment);
            let extra_ms_min = rng.random_range(0..=100);
            let extra_ms_max = extra_ms_min + rng.random_range(50..=1_500);
            Fault::SlowDatabase { host, extra_ms_min, extra_ms_max, for_ms: rng.random_range(1_000..=8_000) }
        }
        Family::StalledDatabase => {
            let host = host_or_all(rng, deployment);
            // Long ones outlast the grace of a stop and the patience of whoever waits for an answer.
            let is_long = rng.random_ratio(1, 5);
            let for_ms = if is_long { rng.random_range(5_000..=15_000) } else { rng.random_range(100..=3_000) };
            Fault::StalledDatabase { host, for_ms }
        }
        Family::FailingDatabase => {
            let (host, per_mille) = (database_user(rng, deployment), per_mille(rng));
            Fault::FailingDatabase { host, per_mille, for_ms: rng.random_range(500..=5_000) }
        }
        Family::FailingHandlers => {
            let (host, per_mille) = (pick(rng, deployment.hosts()), per_mille(rng));
            Fault::FailingHandlers { host, per_mille, for_ms: rng.random_range(1_000..=10_000) }
        }
        Family::LostAcknowledgement => {
            let (host, per_mille) = (database_user(rng, deployment), per_mille(rng));
            Fault::LostAcknowledgement { host, per_mille, for_ms: rng.random_range(500..=5_000) }
        }
        Family::CancelledRequests => {
            let host = pick(rng, deployment.writers());
            let per_mille = per_mille(rng);
            Fault::CancelledRequests { host, per_mille, for_ms: rng.random_range(1_000..=10_000) }
        }
        Family::Strangers => {
            let (host, per_mille) = (pick(rng, deployment.hosts()), [100, 300, 1_000][rng.random_range(0..3)]);
            Fault::Strangers { host, per_mille, for_ms: rng.random_range(1_000..=10_000) }
        }
        Family::BrokenStream => {
            // It takes a stream out of the run for good: in few plans, and late in most.
            let is_rare = rng.random_ratio(1, 2) && at_ms > OUTAGE_STRETCH_MS;
            if !is_rare {
                return None;
            }
            let streams = [
                ("account_data", &deployment.account_data_writer),
                ("to_device", &deployment.to_device_writer),
                ("receipts", &deployment.receipts_writers[0]),
            ];
            let (stream, host) = streams[rng.random_range(0..streams.len())];
            Fault::BrokenStream { host: host.clone(), stream: stream.to_owned() }
        }
    };
    Some(fault)
}

/// A host that `family` may take down at that time. Power cuts and restarts share the hosts without knowing of each
/// other: in every stretch of time each has every second host, and in the next one the others. A rolling restart meets
/// them unawares: as an upgrade does, it passes over a host that is down already, and none of them finds one that it has
/// taken down.
fn outage_host(rng: &mut ChaCha8Rng, family: Family, deployment: &Deployment, at_ms: u64) -> String {
    let parity = at_ms / OUTAGE_STRETCH_MS + u64::from(family == Family::Restart);
    let every_second = deployment.machines().zip(parity..).filter(|(_, place)| place % 2 == 0);
    let hosts: Vec<&str> = every_second.map(|(host, _)| host).collect();
    // Everybody is hit when it is the broker, so it is its turn more often than that of each instance.
    if hosts.contains(&BROKER) && rng.random_ratio(1, 3) {
        return BROKER.to_owned();
    }
    pick(rng, hosts.into_iter())
}

/// Two hosts that have a connection, the one that opened it first.
fn client_and_server(rng: &mut ChaCha8Rng, deployment: &Deployment) -> (String, String) {
    // Where there is a broker, instances are connected to each other only while one asks the other something.
    if deployment.broker.is_some() && rng.random_ratio(3, 4) {
        return (pick(rng, deployment.hosts()), BROKER.to_owned());
    }
    let server = pick(rng, deployment.writers());
    let client = pick(rng, deployment.hosts().filter(|host| *host != server));
    (client, server)
}

/// Two hosts that have a connection.
fn either_way(rng: &mut ChaCha8Rng, deployment: &Deployment) -> (String, String) {
    let (client, server) = client_and_server(rng, deployment);
    if rng.random_ratio(1, 2) { (client, server) } else { (server, client) }
}

/// Any instance or, where there is one, the broker.
fn host_or_broker(rng: &mut ChaCha8Rng, deployment: &Deployment) -> String {
    if deployment.broker.is_some() && rng.random_ratio(1, 4) {
        return BROKER.to_owned();
    }
    pick(rng, deployment.hosts())
}

/// Sometimes everybody, who is then called none.
fn host_or_all(rng: &mut ChaCha8Rng, deployment: &Deployment) -> Option<String> {
    let is_all = rng.random_ratio(1, 4);
    let host = database_user(rng, deployment);
    (!is_all).then_some(host)
}

/// A host that asks much of the database, or any.
fn database_user(rng: &mut ChaCha8Rng, deployment: &Deployment) -> String {
    if rng.random_ratio(1, 2) { rows_writer(rng, deployment) } else { pick(rng, deployment.hosts()) }
}

/// A host that writes rows: as often as not of `events`, which come in bursts.
fn rows_writer(rng: &mut ChaCha8Rng, deployment: &Deployment) -> String {
    let writes_events = rng.random_ratio(1, 2);
    pick(rng, deployment.writers().filter(|host| !writes_events || deployment.writes_events(host)))
}

/// From now and then to always.
fn per_mille(rng: &mut ChaCha8Rng) -> u32 {
    [50, 200, 500, 1_000][rng.random_range(0..4)]
}

fn pick<'a>(rng: &mut ChaCha8Rng, hosts: impl Iterator<Item = &'a str>) -> String {
    let hosts: Vec<&str> = hosts.collect();
    hosts[rng.random_range(0..hosts.len())].to_owned()
}
