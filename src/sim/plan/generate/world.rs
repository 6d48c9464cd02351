//! Draws the world of a plan: its hosts, the writers of each stream, the length of the storm, the network, the sizes of rows.
//!
//! A deployment of one fixed shape hides code that works for that shape alone: for two events writers, a master that writes
//! no events, workers that write no stream. So each seed has its own deployment, of two to twelve hosts.

use std::ops::RangeInclusive;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::sim::plan::{Deployment, NetworkPlan, Plan};
use squall_env::SeedTree;
use squall_protocol::MASTER;

/// The number of events writers.
const EVENTS_WRITERS: RangeInclusive<usize> = 1..=3;
/// The number of receipts writers.
const RECEIPTS_WRITERS: RangeInclusive<usize> = 1..=3;
/// The number of workers.
const WORKERS: RangeInclusive<usize> = 0..=8;
/// The length of the storm, in milliseconds.
const STORM_MS: RangeInclusive<u64> = 20_000..=120_000;
/// The shortest and the longest time that a packet takes, in microseconds: a rack, a data centre (twice as often), a region,
/// a continent, and the other side of the earth.
const LATENCIES_US: [(u64, u64); 6] =
    [(20, 200), (200, 1_000), (200, 1_000), (500, 5_000), (5_000, 40_000), (40_000, 120_000)];
/// The lengths of types that are too long for a line, or almost, in bytes.
const AROUND_A_LINE: LongTypes = LongTypes { per_mille: 100, bytes: (16_000, 18_000) };
/// The long types of a wide world: none, those of every other scenario, many that fill a batch, few that fill a buffer.
const LONG_TYPES: [LongTypes; 4] = [
    LongTypes { per_mille: 0, bytes: (0, 0) },
    AROUND_A_LINE,
    LongTypes { per_mille: 500, bytes: (100, 4_000) },
    LongTypes { per_mille: 100, bytes: (30_000, 70_000) },
];

/// The long types among those of account data. No other row of the storm has a size to draw.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongTypes {
    /// Types out of a thousand that are long.
    per_mille: u32,
    /// Their shortest and longest length, in bytes.
    bytes: (u32, u32),
}

impl LongTypes {
    /// Draws the least length of a type, in bytes.
    pub(super) fn draw(self, rng: &mut ChaCha8Rng) -> u32 {
        if rng.random_ratio(self.per_mille, 1_000) { rng.random_range(self.bytes.0..=self.bytes.1) } else { 0 }
    }
}

/// Draws the long types of `plan`.
pub(super) fn long_types(seeds: &SeedTree, plan: &Plan) -> LongTypes {
    let choice = seeds.rng().random_range(0..LONG_TYPES.len());
    if plan.scenario.is_wide() { LONG_TYPES[choice] } else { AROUND_A_LINE }
}

/// Draws the world of `plan`.
pub(super) fn widen(seeds: &SeedTree, plan: &mut Plan) {
    plan.storm_ms = seeds.child("length").rng().random_range(STORM_MS);
    plan.topology = deployment(seeds);
    let (latency_us_min, latency_us_max) =
        LATENCIES_US[seeds.child("latencies").rng().random_range(0..LATENCIES_US.len())];
    plan.network = NetworkPlan { latency_us_min, latency_us_max };
}

/// Draws the hosts, at least two, and any of them as the writer of each stream. As in most deployments, the master writes
/// every second stream that has one writer; in one plan of four it writes events too.
fn deployment(seeds: &SeedTree) -> Deployment {
    let mut events_writers = names("writer", seeds.child("events writers").rng().random_range(EVENTS_WRITERS));
    if seeds.child("master writes events").rng().random_ratio(1, 4) {
        events_writers[0] = MASTER.to_owned();
    }
    let mut workers = names("worker", seeds.child("workers").rng().random_range(WORKERS));
    if workers.is_empty() && events_writers == [MASTER] {
        workers = names("worker", 1);
    }
    let mut deployment = Deployment {
        events_writers,
        typing_writer: MASTER.to_owned(),
        account_data_writer: MASTER.to_owned(),
        presence_writer: MASTER.to_owned(),
        receipts_writers: Vec::new(),
        to_device_writer: MASTER.to_owned(),
        workers,
        broker: None,
        added: None,
    };
    let hosts: Vec<String> = deployment.hosts().map(str::to_owned).collect();
    for (stream, writer) in [
        ("typing writer", &mut deployment.typing_writer),
        ("account data writer", &mut deployment.account_data_writer),
        ("presence writer", &mut deployment.presence_writer),
        ("to-device writer", &mut deployment.to_device_writer),
    ] {
        let mut rng = seeds.child(stream).rng();
        if rng.random_ratio(1, 2) {
            writer.clone_from(&hosts[rng.random_range(0..hosts.len())]);
        }
    }
    let mut rng = seeds.child("receipts writers").rng();
    deployment.receipts_writers = hosts;
    deployment.receipts_writers.shuffle(&mut rng);
    deployment.receipts_writers.truncate(rng.random_range(RECEIPTS_WRITERS));
    deployment
}

fn names(kind: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{kind}{n}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::sim::plan::{OperationKind, Scenario};

    fn plans() -> impl Iterator<Item = Plan> {
        (0..400).map(|seed| Plan::generate(if seed % 2 == 0 { Scenario::Swarm } else { Scenario::RedisSwarm }, seed))
    }

    #[test]
    fn a_stream_has_its_writers_anywhere_and_there_are_two_to_twelve_hosts() {
        let (mut hosts, mut events, mut receipts, mut workers) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut writers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for Plan { topology, .. } in plans() {
            hosts.insert(topology.hosts().count());
            events.insert(topology.events_writers.len());
            receipts.insert(topology.receipts_writers.len());
            workers.insert(topology.workers.len());
            for (stream, writer) in topology.stream_writers() {
                writers.entry(stream).or_default().insert(writer.trim_end_matches(char::is_numeric).to_owned());
            }
        }
        assert!(hosts.iter().copied().eq(2..=12), "{hosts:?}");
        assert!(events.iter().copied().eq(1..=3), "{events:?}");
        assert!(receipts.iter().copied().eq(1..=3), "{receipts:?}");
        assert!(workers.iter().copied().eq(0..=8), "{workers:?}");
        assert_eq!(writers.len(), 6);
        for (stream, kinds) in writers {
            let expected: &[&str] = if stream.ends_with("events_writers") {
                &["master", "writer"]
            } else {
                &["master", "worker", "writer"]
            };
            assert!(kinds.iter().eq(expected), "{stream}: {kinds:?}");
        }
    }

    #[test]
    fn a_storm_is_short_or_long_its_network_fast_or_slow_and_its_clients_none_or_many() {
        let (mut latencies, mut clients, mut short, mut long) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
        for plan in plans() {
            latencies.insert((plan.network.latency_us_min, plan.network.latency_us_max));
            clients.insert(plan.clients.len());
            short += u32::from(plan.storm_ms < 30_000);
            long += u32::from((110_000..=120_000).contains(&plan.storm_ms));
        }
        assert_eq!(latencies, LATENCIES_US.into());
        assert!(clients.contains(&0) && clients.contains(&6), "{clients:?}");
        assert!(short >= 20 && long >= 20, "{short} {long}");
    }

    #[test]
    fn rows_are_short_around_the_length_of_a_line_or_much_longer() {
        let mut longest = BTreeSet::new();
        for plan in plans() {
            let bytes = plan.operations.iter().filter_map(|operation| match operation.kind {
                OperationKind::AccountData { type_bytes, .. } => Some(type_bytes),
                _ => None,
            });
            let longest_of_plan = bytes.max().unwrap_or_default();
            longest.insert(
                LONG_TYPES
                    .iter()
                    .position(|types| longest_of_plan <= types.bytes.1 && longest_of_plan >= types.bytes.0),
            );
        }
        assert_eq!(longest, (0..LONG_TYPES.len()).map(Some).collect());
    }
}
