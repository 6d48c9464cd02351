//! `squall soak`: its arguments and its output.
//!
//! `tests/soak.rs` runs the soaks whose processes hang, crash or are killed.

use std::process::Command;

use crate::{assert_has_tables_and_verdict, assert_narrow, printed, refused};

#[test]
fn an_empty_or_backward_range_is_refused() {
    refused(&["soak", "--seeds", "5..5"], "has no seeds");
    refused(&["soak", "--seeds", "7..3"], "has no seeds");
    refused(&["soak", "--seeds", "7"], "write A..B");
    refused(&["soak", "--seeds", "a..b"], "is not a seed");
    refused(&["soak", "--seeds", "0..2", "--jobs", "0"], "0");
}

#[test]
fn the_help_names_every_scenario_and_the_default_number_of_jobs() {
    let help = printed(&["soak", "--help"]);
    for scenario in ["storm", "swarm", "quiet", "redis", "redis_swarm"] {
        assert!(help.contains(scenario), "{scenario}: {help}");
    }
    assert!(help.contains("[default: all cores]"), "{help}");
    assert!(printed(&["defects", "--help"]).contains("[default: all cores]"));
}

#[test]
fn a_soak_ends_in_tables_of_80_columns_with_the_verdict_last() {
    for more in [&[][..], &["--verbose"]] {
        let printed = printed(&[&["soak", "--seeds", "0..2"], more].concat());
        assert_narrow(&printed);
        assert_has_tables_and_verdict(&printed, "verdict: 2 passed");
        assert_eq!(printed.lines().last(), Some("verdict: 2 passed"), "{printed}");
    }
}

#[test]
fn a_failing_soak_ends_with_its_failures_and_the_command_that_repeats_the_first() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
    command.args(["soak", "--seeds", "0..3"]).env("SQUALL_TEST_CRASH_SEED", "1");
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_narrow(&printed);
    assert_narrow(&String::from_utf8(output.stderr).unwrap());
    assert!(printed.contains("failure  seeds  first seed\ncrashed      1           1\n"), "{printed}");
    let command = "cargo run --release -- run --scenario storm --seed 1";
    let last: Vec<&str> = printed.lines().rev().take(2).collect();
    assert_eq!(last, [command, "verdict: 2 passed, 1 crashed"], "{printed}");
}
