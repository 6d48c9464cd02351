//! The command line: the arguments that it refuses, and its output. Each subcommand has one file.

mod audit;
mod defects;
mod follow;
mod monitoring;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/program.rs"]
mod program;
mod repair;
mod replay;
mod run;
#[path = "../support/schema.rs"]
mod schema;
mod schemas;
mod serve;
mod shrink;
mod soak;
mod synapse_config;

use std::path::PathBuf;

use serde_json::Value;

use program::{output as squall, refused};

/// A file that is removed at the end of the test.
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

/// Returns the plan of seed 3, as JSON.
fn plan() -> String {
    String::from_utf8(squall(&["plan", "--seed", "3"]).stdout).unwrap()
}

/// Returns an entry of the corpus whose plan fails: packets travel for so long that the calm ends before anything converges.
fn failing_entry() -> Value {
    let text = std::fs::read_to_string("seeds/row_found_at_the_start.json").unwrap();
    let mut entry: Value = serde_json::from_str(&text).unwrap();
    entry["plan"]["network"] = serde_json::json!({ "latency_us_min": 40_000_000, "latency_us_max": 50_000_000 });
    entry
}

/// Returns the text of a configuration file for a master with this database and these ports. A test may add lines to it.
fn configuration(database: &str, replication_port: u16, http_port: u16) -> String {
    format!(
        "server_name = 'squall.test'\nsecret = 'replsecret'\ndatabase = '{database}'\n[instance_map.master]\n\
         host = '127.0.0.1'\nreplication_port = {replication_port}\nhttp_port = {http_port}\n",
    )
}

/// Checks that no line is longer than 80 characters.
fn assert_narrow(printed: &str) {
    assert!(!printed.is_empty());
    for line in printed.lines() {
        let width = line.chars().count();
        assert!(width <= 80, "{width} characters: {line}");
    }
}

/// Runs a command that succeeds. Returns its output.
fn printed(arguments: &[&str]) -> String {
    let output = squall(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?} printed {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Returns the position of `part` in the output.
fn position(printed: &str, part: &str) -> usize {
    printed.find(part).unwrap_or_else(|| panic!("there is no {part:?} in {printed}"))
}

/// Checks that the output has the three tables, in order, and then the verdict.
fn assert_has_tables_and_verdict(printed: &str, verdict: &str) {
    let parts = ["took effect", "times reached", "checks", verdict];
    let positions = parts.map(|part| position(printed, part));
    assert!(positions.is_sorted(), "{printed}");
}
