//! The same seed is the same run, in any process.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::process::Command;

use squall::sim::engine::EngineName;
use squall::sim::plan::Scenario;
use squall::sim::soak;

/// The trace hash of each seed, from other processes than this one.
pub fn hashes(arguments: &[&str]) -> BTreeMap<u64, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_squall")).args(arguments).output().expect("squall runs");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("one object a line"));
    let hash = |run: serde_json::Value| {
        let seed = run["seed"].as_u64().expect("every verdict has its seed");
        (seed, run["trace_hash"].as_str().expect("every verdict has its hash").to_owned())
    };
    lines.map(hash).collect()
}

/// The seeds whose hashes differ or that are missing from one side.
fn differing(one: &BTreeMap<u64, String>, other: &BTreeMap<u64, String>) -> Vec<u64> {
    let seeds: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).copied().collect();
    seeds.into_iter().filter(|seed| one.get(seed) != other.get(seed)).collect()
}

/// Checks that seeds run alike one after another in processes of their own, and two at a time in this one: what runs
/// beside a seed must not matter either.
fn assert_run_alike(scenario: Scenario, seeds: &str) {
    let one = hashes(&["soak", "--scenario", scenario.name(), "--seeds", seeds, "--json"]);
    let mut other = BTreeMap::new();
    let two = NonZeroUsize::new(2).expect("it is not zero");
    soak::run(EngineName::default(), scenario, seeds.parse().expect("it is a range"), two, |verdict| {
        other.insert(verdict.seed, verdict.trace_hash.clone());
        ControlFlow::Continue(())
    });
    assert!(!one.is_empty());
    assert_eq!(differing(&one, &other), Vec::<u64>::new(), "seeds that ran differently");
}

#[test]
fn two_processes_run_the_same_seeds_alike() {
    assert_run_alike(Scenario::Storm, "0..100");
}

#[test]
fn two_processes_run_the_same_seeds_over_redis_alike() {
    assert_run_alike(Scenario::Redis, "0..30");
}

#[test]
fn a_draw_from_elsewhere_than_the_seed_is_noticed() {
    let unseeded = ["run", "--seed", "1", "--json", "--unseeded"];
    assert_eq!(differing(&hashes(&unseeded), &hashes(&unseeded)), [1]);
}
