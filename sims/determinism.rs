//! The same seed is the same run, in any process.
//!
//! 300 seeds of all five scenarios run in this process and in another one, and their trace hashes are compared. In this
//! process, the seeds of the storm and of the swarms are those of other suites, which share their runs with this one. Most
//! are seeds of the storm, which cost least; a quiet one covers ten simulated minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use squall::sim::plan::Scenario;

use crate::suite;

/// Runs `squall` with these arguments. Returns the trace hash of each seed that it ran.
pub(crate) fn hashes(arguments: &[&str]) -> BTreeMap<u64, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_squall")).args(arguments).output().expect("squall runs");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let mut hashes = BTreeMap::new();
    for line in text.lines() {
        let run: serde_json::Value = serde_json::from_str(line).expect("every line is one object");
        let seed = run["seed"].as_u64().expect("every verdict has its seed");
        hashes.insert(seed, run["trace_hash"].as_str().expect("every verdict has its hash").to_owned());
    }
    hashes
}

/// Returns the seeds whose hashes differ, or that one side lacks.
fn differing(one: &BTreeMap<u64, String>, other: &BTreeMap<u64, String>) -> Vec<u64> {
    let seeds: BTreeSet<u64> = one.keys().chain(other.keys()).copied().collect();
    seeds.into_iter().filter(|seed| one.get(seed) != other.get(seed)).collect()
}

/// Checks that `count` seeds, the first of `suite_seeds`, run alike in this process and in another one. The other process
/// runs them one after another, and this one several at a time: a run must not depend on what runs beside it.
fn assert_run_alike(scenario: Scenario, suite_seeds: &str, count: usize) {
    let here = &suite::run_range(scenario, suite::range(suite_seeds)).hashes;
    let here: BTreeMap<u64, String> = here.iter().take(count).map(|(seed, hash)| (*seed, hash.clone())).collect();
    assert_eq!(here.len(), count, "{suite_seeds} has fewer seeds");
    let first = here.keys().next().expect("there is a seed");
    let seeds = format!("{first}..{}", first + count as u64);
    let elsewhere = hashes(&["soak", "--scenario", scenario.name(), "--seeds", &seeds, "--jobs", "1", "--json"]);
    assert_eq!(differing(&here, &elsewhere), Vec::<u64>::new(), "seeds of {scenario} that ran differently");
}

#[test]
fn two_processes_run_the_same_storms_alike() {
    assert_run_alike(Scenario::Storm, "0..100", 100);
    assert_run_alike(Scenario::Storm, "1000..1100", 100);
}

#[test]
fn two_processes_run_the_same_swarms_alike() {
    assert_run_alike(Scenario::Swarm, "0..40", 36);
}

#[test]
fn two_processes_run_the_same_seeds_over_redis_alike() {
    assert_run_alike(Scenario::Redis, "7000..7036", 36);
    assert_run_alike(Scenario::RedisSwarm, "5000..5040", 26);
}

#[test]
fn two_processes_run_the_same_quiet_minutes_alike() {
    assert_run_alike(Scenario::Quiet, "0..2", 2);
}

#[test]
fn a_draw_that_does_not_come_from_the_seed_is_noticed() {
    let unseeded = ["run", "--seed", "1", "--json", "--unseeded"];
    assert_eq!(differing(&hashes(&unseeded), &hashes(&unseeded)), [1]);
}
