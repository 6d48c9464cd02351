//! `squall run` and `squall plan`.

use serde_json::Value;

use crate::{Scratch, assert_has_tables_and_verdict, assert_narrow, plan, position, printed, refused, squall};

/// The README shows some lines of it, in their order, with `...` for others.
#[test]
fn the_readme_shows_what_the_first_command_prints() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let (_, after) = readme.split_once("It ends like this:\n\n```\n").expect("the README shows the end of a run");
    let (shown, _) = after.split_once("```").unwrap();
    // The real time differs from run to run.
    let words = |line: &str| {
        let line = line.split_once(" ms, trace ").map_or(line.to_owned(), |(_, trace)| format!("trace {trace}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let printed = printed(&["run", "--seed", "1"]);
    let mut lines = printed.lines().map(words);
    for line in shown.lines().filter(|line| *line != "...").map(words) {
        assert!(lines.any(|printed| printed == line), "the README shows `{line}`, and the command prints:\n{printed}");
    }
}

#[test]
fn an_unknown_scenario_or_engine_is_refused() {
    refused(&["run", "--scenario", "drizzle"], "storm");
    refused(&["soak", "--seeds", "0..2", "--scenario", "drizzle"], "storm");
    refused(&["run", "--engine", "steam"], "event-driven");
}

#[test]
fn a_seed_that_is_no_number_is_refused() {
    refused(&["run", "--seed", "x"], "invalid value 'x'");
    refused(&["run", "--seed", "-1"], "-1");
}

#[test]
fn a_plan_file_that_cannot_be_used_is_refused_by_name() {
    refused(&["run", "--plan", "no-such-file.json"], "no-such-file.json");
    let malformed = Scratch::new("malformed.json", "{\"format\": 1,\n");
    refused(&["run", "--plan", malformed.path()], malformed.path());
    let newer = Scratch::new("newer.json", &plan().replacen("\"format\": 1", "\"format\": 99", 1));
    refused(&["run", "--plan", newer.path()], "99");
}

#[test]
fn a_run_on_the_other_engine_says_so_and_is_repeated_there() {
    let json = |arguments: &[&str]| serde_json::from_slice::<Value>(&squall(arguments).stdout).unwrap();
    let repeated = "cargo run --release -F turmoil -- run --engine turmoil --scenario storm --seed 3";
    for command in [&["run", "--seed", "3", "--json"][..], &["soak", "--seeds", "3..4", "--json"]] {
        let verdict = json(&[command, &["--engine", "turmoil"]].concat());
        assert_eq!((&verdict["engine"], &verdict["reproduction"]), (&"turmoil".into(), &repeated.into()));
        assert!(verdict["faults_skipped"].as_u64().unwrap() > 0);
        let verdict = json(command);
        assert_eq!((&verdict["engine"], &verdict["faults_skipped"]), (&"event-driven".into(), &0.into()));
    }
}

#[test]
fn a_printed_plan_runs_as_its_seed_does() {
    let json = |arguments: &[&str]| -> Value {
        let output = squall(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let printed = Scratch::new("printed.json", &plan());
    let by_plan = json(&["run", "--plan", printed.path(), "--json"]);
    let by_seed = json(&["run", "--seed", "3", "--json"]);
    assert_eq!(by_plan["trace_hash"], by_seed["trace_hash"]);
    assert_eq!(by_plan["verdict"], "passed");
}

#[test]
fn a_plan_runs_as_it_was_edited() {
    let mut edited: Value = serde_json::from_str(&plan()).unwrap();
    edited["operations"] = serde_json::json!([{ "at_ms": 10_000, "kind": { "send": { "room": 1 } } }]);
    edited["faults"] = serde_json::json!([]);
    edited["clients"] = serde_json::json!([]);
    edited["has_probe"] = Value::from(false);
    let edited = Scratch::new("edited.json", &edited.to_string());
    let output = squall(&["run", "--plan", edited.path(), "--json"]);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&verdict["rows_committed"], &verdict["faults"]), (&Value::from(1), &Value::from(0)));
}

#[test]
fn a_run_ends_in_tables_of_80_columns_with_the_verdict_and_the_command_last() {
    for seed in ["1", "3"] {
        let printed = printed(&["run", "--seed", seed]);
        assert_narrow(&printed);
        assert_has_tables_and_verdict(&printed, "verdict: passed");
        let last: Vec<&str> = printed.lines().rev().take(2).collect();
        assert_eq!(last, [&*format!("cargo run --release -- run --scenario storm --seed {seed}"), "verdict: passed"]);
    }
}

#[test]
fn a_run_names_what_it_did_not_reach_and_shows_every_counter_when_verbose() {
    let short = printed(&["run", "--seed", "1"]);
    let long = printed(&["run", "--seed", "1", "--verbose"]);
    assert_narrow(&long);
    // A storm has no broker, so no run of it reaches a broker's limit.
    let not_reached = &short[position(&short, "not reached:")..];
    assert!(not_reached.contains("output_limit"), "{short}");
    assert_eq!(short.matches("output_limit").count(), 1, "{short}");
    assert_eq!(long.matches("output_limit").count(), 2, "it has a row of its own: {long}");
    assert!(long.contains("faults without effect") && !short.contains("faults without effect"), "{long}");
    refused(&["run", "--seed", "1", "--verbose", "--json"], "--json");
}

#[test]
fn a_run_over_redis_and_one_on_the_other_engine_fit_80_columns_too() {
    let redis = printed(&["run", "--seed", "3", "--scenario", "redis_swarm"]);
    assert_narrow(&redis);
    let turmoil = printed(&["run", "--seed", "3", "--engine", "turmoil"]);
    assert_narrow(&turmoil);
    let text = turmoil.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("faults skipped, because the engine turmoil cannot inject them"), "{turmoil}");
}
