//! Draws a plan from a seed.
//!
//! Every draw has a key of its own (purpose, family, ordinal), so that one draw more or less changes no other one: a seed that
//! showed a defect still shows it when an unrelated family of faults is changed.

mod added;
mod clients;
mod faults;
mod gap;
mod limits;
mod operations;
mod past_limits;
mod population;
mod presence;
mod reads;
mod syncs;
mod weights;
mod world;

use rand::RngExt;

use super::{
    BrokerPlan, DatabasePlan, Deployment, FORMAT, Family, LimitsPlan, NetworkPlan, Plan, Scenario, SchedulingPlan,
};
use squall_env::SeedTree;

impl Plan {
    /// Draws the plan of `seed` in `scenario`.
    pub fn generate(scenario: Scenario, seed: u64) -> Plan {
        let seeds = SeedTree::from_seed(seed).child("plan").child(scenario);
        let mut plan = Plan {
            format: FORMAT,
            seed,
            scenario,
            storm_ms: scenario.storm_ms(),
            topology: scenario.deployment(),
            network: network(&seeds.child("network")),
            scheduling: SchedulingPlan::default(),
            database: database(&seeds.child("database")),
            presence: Default::default(),
            limits: LimitsPlan::default(),
            operations: Vec::new(),
            faults: Vec::new(),
            clients: Vec::new(),
            has_probe: true,
        };
        if scenario == Scenario::Quiet {
            return plan;
        }
        plan.presence = syncs::presence(&seeds.child("presence"));
        presence::draw_times(&seeds.child("presence times"), &mut plan.presence);
        if scenario.is_wide() {
            world::widen(&seeds.child("world"), &mut plan);
            plan.topology.added = added::draw(&seeds.child("added"), &plan);
        } else {
            move_writers(&seeds, &mut plan.topology);
        }
        plan.topology.broker = scenario.is_over_redis().then(|| broker(&seeds.child("broker")));
        plan.scheduling = scheduling(&seeds.child("defer"));
        let families = families(&seeds.child("family"), scenario);
        plan.faults = faults::draw(&seeds.child("faults"), &families, &plan.topology, plan.storm_ms);
        plan.operations = operations::draw(&seeds.child("operations"), &plan);
        plan.operations.extend(syncs::draw(&seeds.child("syncs"), &plan));
        if scenario.is_wide() {
            plan.operations.extend(syncs::crowd(&seeds.child("crowd"), &plan));
            plan.operations.extend(syncs::companions(&seeds.child("companions"), &plan));
        }
        plan.operations.extend(presence::draw(&seeds.child("set presence"), &plan));
        plan.operations.sort_by_key(|operation| operation.at_ms);
        plan.clients = clients::draw(&seeds.child("clients"), &plan);
        if scenario.is_wide() {
            plan.limits = limits::draw(&seeds.child("limits"), &plan);
            gap::insert(&seeds.child("gap"), &mut plan);
        }
        plan
    }
}

/// Draws the families of faults that are on: in one plan of twelve none, in one of seven a single one, otherwise about two
/// of three. A family that is on in every plan would hide the defects that another one shows only by itself.
fn families(seeds: &SeedTree, scenario: Scenario) -> Vec<Family> {
    let is_possible = |family: &Family| {
        (scenario.is_over_redis() || !family.needs_broker()) && (scenario.is_wide() || !family.is_wide_only())
    };
    let all: Vec<Family> = Family::ALL.iter().copied().filter(is_possible).collect();
    let is_on = |family: &Family| seeds.child(family.first_name()).rng().random_ratio(68, 100);
    let mut rng = seeds.rng();
    match rng.random_range(0..100) {
        0..8 => Vec::new(),
        8..22 => vec![all[rng.random_range(0..all.len())]],
        _ => all.into_iter().filter(is_on).collect(),
    }
}

/// Moves each stream that has only one writer to an events writer, in one plan of five.
fn move_writers(seeds: &SeedTree, topology: &mut Deployment) {
    let events_writer = topology.events_writers[0].clone();
    for (stream, writer) in [
        ("typing writer", &mut topology.typing_writer),
        ("account data writer", &mut topology.account_data_writer),
        ("presence writer", &mut topology.presence_writer),
        ("to-device writer", &mut topology.to_device_writer),
    ] {
        if seeds.child(stream).rng().random_ratio(1, 5) {
            writer.clone_from(&events_writer);
        }
    }
}

/// Draws the limits of the broker. Mostly they are so low that a slow subscriber soon exceeds them; sometimes they are those
/// of an unconfigured Redis.
fn broker(seeds: &SeedTree) -> BrokerPlan {
    let mut rng = seeds.rng();
    let hard_bytes = [32 << 10, 128 << 10, 512 << 10, 32 << 20][rng.random_range(0..4)];
    let soft_for_ms = rng.random_range(1_000..=10_000);
    BrokerPlan { hard_bytes, soft_bytes: hard_bytes / 4, soft_for_ms, has_password: rng.random_ratio(1, 2) }
}

/// Draws the latency of the network: that of a data centre, a region or a continent.
fn network(seeds: &SeedTree) -> NetworkPlan {
    let mut rng = seeds.rng();
    let (latency_us_min, latency_us_max) = match rng.random_range(0..10) {
        0..5 => (200, 1_000),
        5..8 => (500, 5_000),
        _ => (5_000, 40_000),
    };
    NetworkPlan { latency_us_min, latency_us_max }
}

/// Draws the scheduling. In one plan of three polls are delayed: rarely, or so often that hardly any two tasks run in the
/// order in which they were woken.
fn scheduling(seeds: &SeedTree) -> SchedulingPlan {
    let mut rng = seeds.rng();
    if !rng.random_ratio(1, 3) {
        return SchedulingPlan::default();
    }
    let deferred_per_mille = [10, 50, 200][rng.random_range(0..3)];
    let deferral_ms_max = [0, 1, 5, 50][rng.random_range(0..4)];
    SchedulingPlan { deferred_per_mille, deferral_ms_max }
}

/// Draws the delays of the database: a fast, a busy or an overloaded one. A slow one keeps ids in flight for long (Synapse
/// #19795).
fn database(seeds: &SeedTree) -> DatabasePlan {
    let mut rng = seeds.rng();
    let most_us = match rng.random_range(0..10) {
        0..4 => 1_000,
        4..8 => 10_000,
        _ => 100_000,
    };
    let mut delay = || (rng.random_range(0..=most_us / 10), rng.random_range(most_us / 2..=most_us));
    let before_us = delay();
    let after_us = delay();
    let rollback_per_mille = if rng.random_ratio(1, 2) { rng.random_range(1..=30) } else { 0 };
    DatabasePlan { before_us, after_us, rollback_per_mille }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::{BROKER, Fault, FaultEntry, Operation, OperationKind, Reading};
    use super::*;
    use crate::sim::faults::{Freeze, Outage, PowerCut, Restart, RollingRestart};

    fn plans() -> impl Iterator<Item = Plan> {
        (0..500).map(|seed| Plan::generate(if seed % 2 == 0 { Scenario::Storm } else { Scenario::Swarm }, seed))
    }

    #[test]
    fn over_redis_the_broker_has_its_share_of_the_faults_that_can_hit_it_and_none_of_the_rest() {
        let (mut at_broker, mut all, mut limits) = (BTreeMap::new(), 0, BTreeSet::new());
        for plan in (0..200).map(|seed| Plan::generate(Scenario::RedisSwarm, seed)) {
            limits.extend(plan.topology.broker.as_ref().map(|broker| broker.hard_bytes));
            let at = |entry: &&FaultEntry| entry.fault.hosts().contains(&BROKER);
            for entry in plan.faults.iter().filter(at) {
                *at_broker.entry(entry.fault.family()).or_insert(0) += 1;
            }
            all += plan.faults.len();
            assert!(Plan::load(&plan.to_json()).is_ok(), "seed {}", plan.seed);
        }
        let hitting: Vec<Family> = at_broker.keys().copied().collect();
        let expected: Vec<Family> = Family::ALL.iter().copied().filter(|family| family.hits_broker()).collect();
        assert_eq!(hitting, expected);
        assert!(at_broker.values().all(|count| *count >= 100), "{at_broker:?}");
        let of_broker: usize = at_broker.values().sum();
        assert!((all / 4..all / 2).contains(&of_broker), "{of_broker} of {all}");
        assert_eq!(limits.len(), 4);
        let over_tcp = Plan::generate(Scenario::Swarm, 1);
        assert!(over_tcp.topology.broker.is_none() && !over_tcp.to_json().contains(BROKER));
    }

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_seed_another() {
        for scenario in [Scenario::Storm, Scenario::Swarm] {
            assert_eq!(Plan::generate(scenario, 7), Plan::generate(scenario, 7));
            assert_ne!(Plan::generate(scenario, 7).operations, Plan::generate(scenario, 8).operations);
        }
    }

    #[test]
    fn every_second_plan_of_a_swarm_has_some_small_limits_and_no_other_plan_has() {
        let storms = [Scenario::Storm, Scenario::Redis, Scenario::Quiet];
        let plans = storms.into_iter().flat_map(|scenario| (0..20).map(move |seed| Plan::generate(scenario, seed)));
        assert!(plans.into_iter().all(|plan| plan.limits.is_production() && !plan.to_json().contains("limits")));
        let (mut small, mut set) = (0, BTreeMap::new());
        for plan in (0..200).map(|seed| Plan::generate(Scenario::RedisSwarm, seed)) {
            small += u32::from(!plan.limits.is_production());
            let serde_json::Value::Object(limits) = serde_json::to_value(plan.limits).unwrap() else { unreachable!() };
            for limit in limits.keys() {
                *set.entry(limit.clone()).or_insert(0) += 1;
            }
        }
        assert!((80..=120).contains(&small), "{small}");
        assert_eq!(set.len(), 11, "{set:?}");
        // Over a long way, few payloads under way would be too slow.
        let unanswered = set.remove("unanswered_max").unwrap();
        assert!((15..=45).contains(&unanswered), "{unanswered}");
        assert!(set.values().all(|count| (30..=70).contains(count)), "{set:?}");
        let over_tcp: Vec<LimitsPlan> = (0..50).map(|seed| Plan::generate(Scenario::Swarm, seed).limits).collect();
        assert!(over_tcp.iter().all(|limits| limits.unanswered_max.is_none()));
        let few = over_tcp.iter().filter(|limits| limits.tcp_connections_max.is_some()).count();
        assert!((5..=25).contains(&few), "{few}");
    }

    #[test]
    fn a_family_switched_off_leaves_the_others_as_they_were() {
        let deployment = Scenario::Storm.deployment();
        let families: Vec<Family> = Family::ALL.iter().copied().filter(|family| !family.needs_broker()).collect();
        let mut drawn: BTreeSet<Family> = BTreeSet::new();
        for seeds in (0..20).map(SeedTree::from_seed) {
            let all = faults::draw(&seeds, &families, &deployment, 60_000);
            drawn.extend(all.iter().map(|entry| entry.fault.family()));
            for &off in &families {
                let others: Vec<Family> = families.iter().copied().filter(|family| *family != off).collect();
                let mut expected = all.clone();
                expected.retain(|entry| entry.fault.family() != off);
                assert_eq!(faults::draw(&seeds, &others, &deployment, 60_000), expected, "{off}");
            }
        }
        assert!(drawn.iter().eq(&families), "{drawn:?}");
    }

    #[test]
    fn five_hundred_plans_hold_many_faults_of_each_family() {
        let mut counts: BTreeMap<Family, usize> = BTreeMap::new();
        let (mut none, mut single) = (0, 0);
        for plan in plans() {
            let families: BTreeSet<Family> = plan.faults.iter().map(|entry| entry.fault.family()).collect();
            none += usize::from(families.is_empty());
            single += usize::from(families.len() == 1);
            assert!(
                plan.scenario.is_wide() || !families.contains(&Family::ClockStep),
                "it would change what seeds stand for"
            );
            for FaultEntry { fault, .. } in &plan.faults {
                // A rolling restart is as many restarts as it has hosts.
                let weight =
                    if let Fault::RollingRestart(RollingRestart { hosts, .. }) = fault { hosts.len() } else { 1 };
                *counts.entry(fault.family()).or_default() += weight;
            }
        }
        // Faults of the database are rarer: in a plan with nothing else, few rows would be written.
        let least = |family: Family| match family {
            Family::BrokenStream => 50, // one takes a stream out of the run for good
            _ if family.is_wide_only() => 400,
            _ if family < Family::SlowWriter => 2_400,
            _ => 900,
        };
        for family in Family::ALL.iter().filter(|family| !family.needs_broker()) {
            assert!(counts[family] >= least(*family), "{counts:?}");
        }
        assert!(none >= 20 && single >= 40, "{none} without faults, {single} with one family");
    }

    #[test]
    fn every_plan_of_fixed_size_writes_enough_rows_while_all_writers_are_up() {
        for plan in plans().filter(|plan| plan.scenario == Scenario::Storm) {
            let up = |at_ms: u64| population::writers_up_ms(&plan, at_ms) == at_ms;
            let safe = plan.operations.iter().filter(|operation| up(operation.at_ms));
            let safe: u32 = safe.map(|operation| operation.kind.rows()).sum();
            assert!(safe >= 520, "seed {}: {safe} rows", plan.seed);
            assert!((700..1_600).contains(&plan.rows()), "seed {}: {} rows", plan.seed, plan.rows());
        }
    }

    #[test]
    fn every_count_around_a_limit_occurs_and_tokens_carry_many_rows() {
        let (mut state, mut events, mut on_one_token) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for operation in plans().flat_map(|plan| plan.operations) {
            match operation.kind {
                OperationKind::StateBurst { rows, tokens, .. } => {
                    state.insert(rows);
                    on_one_token.extend((tokens == 1).then_some(rows));
                }
                OperationKind::SendBurst { events: count, .. } => {
                    events.insert(count);
                }
                _ => {}
            }
        }
        assert_eq!(state, BTreeSet::from([1, 49, 50, 51, 99, 100, 101, 149, 150, 151]));
        assert_eq!(on_one_token, state);
        assert_eq!(events, BTreeSet::from([49, 50, 51, 99, 100, 101]));
    }

    #[test]
    fn plans_hold_syncs_of_all_lengths_and_every_expiry() {
        let (mut expiries, mut for_ever, mut steady, mut short) = (BTreeSet::new(), 0, 0, 0);
        for plan in plans() {
            expiries.insert(plan.presence.process_expiry_ms);
            for Operation { at_ms, kind, .. } in &plan.operations {
                let OperationKind::Sync { for_ms, .. } = kind else { continue };
                for_ever += u32::from(at_ms + for_ms > plan.storm_ms);
                steady += u32::from(at_ms + for_ms <= plan.storm_ms && for_ms * 4 >= plan.storm_ms * 3);
                short += u32::from(*for_ms < 10_000);
            }
        }
        assert_eq!(expiries, BTreeSet::from([20_000, 60_000, 300_000]));
        assert!(for_ever > 1_000 && steady > 1_000 && short > 5_000, "{for_ever} {steady} {short}");
    }

    #[test]
    fn about_one_wide_plan_of_six_has_a_host_that_serves_many_users_at_once() {
        let crowds = |scenario| {
            let plans = (0..200).map(|seed| Plan::generate(scenario, seed));
            let is_crowd = |plan: Plan| {
                let mut users: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
                for Operation { kind, .. } in plan.operations {
                    let OperationKind::Sync { user, host, for_ms, .. } = kind else { continue };
                    if for_ms * 4 >= plan.storm_ms * 3 {
                        users.entry(host).or_default().insert(user);
                    }
                }
                users.values().any(|users| users.len() >= 12)
            };
            plans.filter(|plan| is_crowd(plan.clone())).count()
        };
        let in_swarms = crowds(Scenario::Swarm);
        assert!((20..=50).contains(&in_swarms), "{in_swarms}");
        assert_eq!(crowds(Scenario::Storm), 0);
    }

    #[test]
    fn in_wide_plans_devices_sync_twice_at_a_time() {
        let twice = |scenario| {
            let (mut on_one_host, mut on_two) = (0, 0);
            for plan in (0..200).map(|seed| Plan::generate(scenario, seed)) {
                let syncs = plan.operations.iter().filter_map(|Operation { at_ms, kind, .. }| match kind {
                    OperationKind::Sync { user, device, host, for_ms } if for_ms * 2 >= plan.storm_ms => {
                        Some((*at_ms..at_ms + for_ms, (user, device), host))
                    }
                    _ => None,
                });
                for (lasting, of, host) in syncs {
                    for Operation { at_ms, kind, .. } in &plan.operations {
                        let OperationKind::Sync { user, device, host: other, for_ms } = kind else { continue };
                        if (user, device) == of && for_ms * 2 < plan.storm_ms && lasting.contains(at_ms) {
                            *if other == host { &mut on_one_host } else { &mut on_two } += 1;
                        }
                    }
                }
            }
            (on_one_host, on_two)
        };
        let (on_one_host, on_two) = twice(Scenario::Swarm);
        assert!(on_one_host > 300 && on_two > 300, "{on_one_host} {on_two}");
        let (on_one_host, on_two) = twice(Scenario::Storm);
        assert!(on_one_host < 300, "a storm keeps its shape: {on_one_host} {on_two}");
    }

    #[test]
    fn bursts_often_come_to_several_rooms_at_the_same_time() {
        let (mut together, mut times) = (0, 0);
        for plan in plans() {
            let mut rooms: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
            for operation in &plan.operations {
                if let OperationKind::StateBurst { room, .. } | OperationKind::SendBurst { room, .. } = operation.kind {
                    rooms.entry(operation.at_ms).or_default().insert(room);
                }
            }
            times += rooms.len();
            together += rooms.values().filter(|rooms| rooms.len() >= 2).count();
        }
        assert!(together * 2 > times, "{together} of {times}");
    }

    #[test]
    fn bursts_often_come_while_a_fault_lasts_or_just_after() {
        let (mut near, mut all) = (0, 0);
        for plan in plans().filter(|plan| !plan.faults.is_empty()) {
            let is_near = |at_ms: u64| {
                let mut lasting =
                    plan.faults.iter().map(|entry| entry.at_ms..entry.at_ms + entry.fault.for_ms() + 1_500);
                lasting.any(|lasting| lasting.contains(&at_ms))
            };
            let bursts = plan.operations.iter().filter(|operation| operation.kind.rows() > 1);
            for burst in bursts {
                near += u32::from(is_near(burst.at_ms));
                all += 1;
            }
        }
        assert!(near * 2 > all, "{near} of {all}");
    }

    #[test]
    fn everything_that_can_be_read_is_read_through_every_host_while_it_is_written() {
        let mut read: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for plan in plans() {
            for operation in &plan.operations {
                if let OperationKind::Read { host, what } = &operation.kind {
                    let kind = match what {
                        Reading::State { .. } => "state",
                        Reading::Event { .. } => "event",
                        Reading::Receipts { .. } => "receipts",
                        Reading::AccountData { room: None, .. } => "account data",
                        Reading::AccountData { room: Some(_), .. } => "room account data",
                    };
                    read.entry(kind).or_default().insert(host.clone());
                }
            }
        }
        assert_eq!(read.len(), 5);
        assert!(read.values().all(|hosts| hosts.len() == 12), "{read:?}");
    }

    #[test]
    fn everything_drawn_can_be_loaded_and_is_in_order() {
        for plan in plans() {
            assert!(plan.operations.is_sorted_by_key(|operation| operation.at_ms));
            assert!(plan.faults.is_sorted_by_key(|entry| entry.at_ms));
            if let Err(error) = Plan::load(&plan.to_json()) {
                panic!("seed {}: {error}", plan.seed);
            }
        }
    }

    #[test]
    fn a_host_is_never_taken_down_twice_at_once_and_stays_up_a_while() {
        for plan in plans() {
            let mut up_at: BTreeMap<&str, u64> = BTreeMap::new();
            for entry in &plan.faults {
                if let Fault::PowerCut(PowerCut { host, for_ms, .. }) | Fault::Restart(Restart { host, for_ms, .. }) =
                    &entry.fault
                {
                    let up_at_before = up_at.insert(host, entry.at_ms + for_ms);
                    assert!(up_at_before.is_none_or(|up_at| up_at + 1_000 <= entry.at_ms), "seed {}", plan.seed);
                }
            }
        }
    }

    #[test]
    fn a_rolling_restart_takes_down_every_host_in_order_and_is_over_before_the_storm() {
        let mut rolling = 0;
        for plan in plans() {
            let mut over_at = 0;
            for FaultEntry { at_ms, fault } in &plan.faults {
                let Fault::RollingRestart(RollingRestart { hosts, down_ms, pause_ms }) = fault else { continue };
                assert!(plan.topology.hosts().eq(hosts.iter().map(String::as_str)), "seed {}", plan.seed);
                assert!(over_at <= *at_ms, "seed {}: two at a time", plan.seed);
                over_at = at_ms + (down_ms + pause_ms) * (hosts.len() as u64 - 1) + down_ms;
                assert_eq!(over_at, at_ms + fault.for_ms());
                assert!(over_at <= plan.storm_ms, "seed {}", plan.seed);
                rolling += 1;
            }
        }
        assert!(rolling >= 300, "{rolling}");
    }

    #[test]
    fn no_burst_falls_to_a_writer_that_a_rolling_restart_has_taken_down() {
        for plan in plans() {
            let rolling = plan.faults.iter().filter(|entry| matches!(entry.fault, Fault::RollingRestart(..)));
            let outages: Vec<_> = rolling
                .flat_map(|FaultEntry { at_ms, fault }| {
                    fault
                        .outages()
                        .into_iter()
                        .map(move |Outage { host, from_ms, until_ms }| (host, at_ms + from_ms..at_ms + until_ms))
                })
                .filter(|(host, _)| plan.topology.writes_events(host))
                .collect();
            let is_burst = |operation: &&Operation| {
                matches!(operation.kind, OperationKind::SendBurst { .. } | OperationKind::StateBurst { .. })
            };
            for burst in plan.operations.iter().filter(is_burst) {
                assert!(outages.iter().all(|(_, down)| !down.contains(&burst.at_ms)), "seed {}", plan.seed);
            }
        }
    }

    #[test]
    fn a_process_is_frozen_from_milliseconds_to_beyond_the_ping_time_out_and_thawed_before_the_calm() {
        let (mut short, mut long) = (0, 0);
        for plan in plans() {
            for FaultEntry { at_ms, fault } in &plan.faults {
                let Fault::Freeze(Freeze { for_ms, .. }) = fault else { continue };
                assert!(at_ms + for_ms <= plan.storm_ms, "seed {}", plan.seed);
                short += u32::from(*for_ms < 500);
                long += u32::from(*for_ms > 25_000);
            }
        }
        assert!(short >= 100 && long >= 100, "{short} short, {long} long");
    }

    #[test]
    fn about_one_plan_of_three_delays_polls() {
        let deferring = plans().filter(|plan| plan.scheduling != SchedulingPlan::default()).count();
        assert!((130..=200).contains(&deferring), "{deferring}");
    }

    #[test]
    fn a_quiet_plan_has_nothing_in_it() {
        let plan = Plan::generate(Scenario::Quiet, 7);
        assert_eq!((plan.operations.len(), plan.faults.len(), plan.storm_ms), (0, 0, 600_000));
        assert_eq!(plan.topology.hosts().count(), 9);
    }
}
