//! The command line: what it refuses, and that what it prints can be used.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn squall(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_squall")).args(arguments).output().expect("squall runs")
}

/// Checks that the arguments are refused with status 2 and an error that says `what`.
fn refused(arguments: &[&str], what: &str) {
    let output = squall(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} printed {error}");
    assert!(error.contains(what), "{arguments:?} printed {error}");
    assert!(output.stdout.is_empty());
}

/// A file that is gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("squall-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn plan() -> String {
    String::from_utf8(squall(&["plan", "--seed", "3"]).stdout).unwrap()
}

#[test]
fn an_unknown_scenario_or_engine_is_refused() {
    refused(&["run", "--scenario", "drizzle"], "storm");
    refused(&["soak", "--seeds", "0..2", "--scenario", "drizzle"], "storm");
    refused(&["run", "--engine", "steam"], "turmoil-net");
}

#[test]
fn a_seed_that_is_no_number_is_refused() {
    refused(&["run", "--seed", "x"], "invalid value 'x'");
    refused(&["run", "--seed", "-1"], "-1");
}

#[test]
fn an_empty_or_backward_range_is_refused() {
    refused(&["soak", "--seeds", "5..5"], "has no seeds");
    refused(&["soak", "--seeds", "7..3"], "has no seeds");
    refused(&["soak", "--seeds", "7"], "write A..B");
    refused(&["soak", "--seeds", "a..b"], "is no seed");
    refused(&["soak", "--seeds", "0..2", "--jobs", "0"], "0");
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
    let edited = Scratch::new("edited.json", &edited.to_string());
    let output = squall(&["run", "--plan", edited.path(), "--json"]);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&verdict["rows_committed"], &verdict["faults"]), (&Value::from(1), &Value::from(0)));
}
