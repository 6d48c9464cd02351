//! The dashboards and alert rules of docs/monitoring, and the metrics that they show.

use std::collections::BTreeSet;
use std::fs;

use prometheus::{IntCounter, Registry};
use serde_json::Value;
use squall::follow::FollowMetrics;
use squall::metrics::Metrics;

const FOLDER: &str = "docs/monitoring";

/// Returns true if the program has this metric: its name is taken in one of the two registries.
fn exists(registries: &[Registry], name: &str) -> bool {
    registries.iter().any(|registry| {
        let other = IntCounter::new(name, "Another metric.").unwrap();
        let is_taken = registry.register(Box::new(other.clone())).is_err();
        if !is_taken {
            registry.unregister(Box::new(other)).unwrap();
        }
        is_taken
    })
}

fn registries() -> [Registry; 2] {
    let registries = [Registry::new(), Registry::new()];
    FollowMetrics::new(&registries[0]).unwrap();
    Metrics::new(&registries[1]).unwrap();
    registries
}

/// Returns the words of a text that begin with `squall_`.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("squall_")).collect()
}

#[test]
fn every_metric_in_the_dashboards_and_rules_exists() {
    let registries = registries();
    let mut files = 0;
    for entry in fs::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let metrics = metrics_in(&text);
        assert!(metrics.len() >= 5, "{}: {metrics:?}", path.display());
        let unknown: Vec<_> = metrics.into_iter().filter(|metric| !exists(&registries, metric)).collect();
        assert!(unknown.is_empty(), "{} names metrics that do not exist: {unknown:?}", path.display());
        files += 1;
    }
    assert_eq!(files, 4);
    assert!(!exists(&registries, "squall_follow_no_such_total") && exists(&registries, "squall_follow_rows_total"));
}

#[test]
fn the_dashboards_are_json_with_an_expression_in_every_panel() {
    for name in ["follow", "serve"] {
        let text = fs::read_to_string(format!("{FOLDER}/{name}.json")).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: an id comes twice");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{name}: {panel}");
            for target in targets {
                let expression = target["expr"].as_str().unwrap();
                let metrics = metrics_in(expression);
                assert!(!metrics.is_empty(), "{name}: {panel}");
                // The counter of a kind appears with its first finding, which `rate` and `increase` do not see.
                let counts_findings = metrics.contains("squall_follow_findings_total");
                assert!(!counts_findings || expression.contains(" unless "), "{name}: {expression}");
            }
        }
        assert!(ids.len() > 10, "{name}");
    }
}

#[test]
fn every_alert_rule_has_a_test_in_which_it_fires() {
    let read = |name: &str| fs::read_to_string(format!("{FOLDER}/{name}.yml")).unwrap();
    let (rules, tests) = (read("alerts"), read("alerts_test"));
    let rules: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let mut fire = BTreeSet::new();
    for test in tests.split("alertname: ").skip(1) {
        let (name, rest) = test.split_once('\n').unwrap();
        if !rest.trim_start().starts_with("exp_alerts: []") {
            fire.insert(name);
        }
    }
    assert!(rules.len() > 10, "{rules:?}");
    let untested: Vec<_> = rules.iter().filter(|rule| !fire.contains(**rule)).collect();
    assert!(untested.is_empty(), "{untested:?}");
}
