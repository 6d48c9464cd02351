//! `squall shrink`, and the shrinking of a run that failed.

use std::process::Command;

use serde_json::Value;

use crate::{Scratch, assert_narrow, failing_entry, refused, squall};

#[test]
fn a_plan_that_fails_is_shrunk_and_kept_as_an_entry_that_fails_too() {
    let plan = Scratch::new("failing.json", &failing_entry()["plan"].to_string());
    let least = Scratch::new("least.json", "");
    let shrunk =
        ["shrink", "--plan", plan.path(), "--failure", "stuck", "--runs", "30", "--json", "--out", least.path()];
    let output = squall(&shrunk);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert!(report["runs"].as_u64().unwrap() <= 30 && report["fingerprint"].as_str().unwrap().starts_with("stuck/"));
    assert!(report["hosts"].as_u64() < Some(6) && report["faults"] == 0, "the plan is smaller: {report}");
    let replayed = squall(&["replay", "--json", least.path()]);
    assert_eq!(replayed.status.code(), Some(1));
    let replayed: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!((&replayed["catches"], &replayed["verdict"]), (&"stuck".into(), &"stuck".into()));
}

#[test]
fn a_failing_run_is_shrunk_by_itself_and_its_last_line_is_the_command_that_repeats_it() {
    let directory = std::env::temp_dir().join(format!("squall-{}-found", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let plan = Scratch::new("fails.json", &failing_entry()["plan"].to_string());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
        let output = command.args(["run", "--plan", plan.path()]).args(arguments).current_dir(&directory).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let kept = || std::fs::read_dir(directory.join("found")).map_or(0, |files| files.count());
    let last = format!("cargo run --release -- run --plan {}", plan.path());
    let printed = run(&["--shrink-runs", "0"]);
    assert_eq!((printed.lines().last(), kept()), (Some(&*last), 0), "{printed}");
    let printed = run(&["--shrink-runs", "3"]);
    assert!(printed.contains("shrunk in 3 runs, where the budget ended") && printed.contains("#[test]"), "{printed}");
    assert_narrow(&printed);
    let verdict = printed.lines().rev().nth(1);
    assert!(verdict.is_some_and(|line| line == "verdict: stuck"), "{printed}");
    assert_eq!((printed.lines().last(), kept()), (Some(&*last), 1), "{printed}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_plan_that_does_not_fail_is_not_shrunk() {
    let text = std::fs::read_to_string("seeds/row_found_at_the_start.json").unwrap();
    let entry: Value = serde_json::from_str(&text).unwrap();
    let plan = Scratch::new("passing.json", &entry["plan"].to_string());
    refused(&["shrink", "--plan", plan.path()], "does not fail");
    refused(&["defects", "no_such_defect"], "no_such_defect");
}

#[test]
fn the_old_name_of_an_invariant_is_accepted_where_a_failure_is_named() {
    let stopped = squall(&["soak", "--seeds", "0..1", "--json", "--stop-on", "strangers_isolated"]);
    assert_eq!(stopped.status.code(), Some(1), "no seed fails: {}", String::from_utf8_lossy(&stopped.stderr));
    let plan = Scratch::new("old-name.json", &failing_entry()["plan"].to_string());
    let shrunk = ["shrink", "--plan", plan.path(), "--runs", "1", "--failure", "causes_bounded"];
    refused(&shrunk, "does not fail with amplification_bounded");
}
