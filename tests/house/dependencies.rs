//! The licences, the minimum Rust version and the duplicates of the crates that Squall is built from.
//!
//! They come from `cargo metadata` and `cargo tree`, so the checks need no network. Known vulnerabilities need a database
//! from the network: `.ci/run` asks `cargo deny` for them where it is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::sources::read;

/// Licences that allow use in a program under MIT or Apache-2.0.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The crates of which a default build has two versions, and the reason.
const TWICE: [(&str, &str); 2] = [
    ("getrandom", "ring, for TLS, has an older one than rand"),
    ("syn", "the macros of strum and tracing have an older one than those of serde; no program contains it"),
];

/// Returns true if an SPDX expression allows use under [`ALLOWED`] licences alone: all parts of `C AND D`, or one part of
/// `A OR B`. `A/B` is an older form of `A OR B`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.trim();
    // `AND` binds closer than `OR`.
    for separator in [" OR ", "/"] {
        let alternatives = split(expression, separator);
        if alternatives.len() > 1 {
            return alternatives.iter().any(|part| is_allowed(part));
        }
    }
    let parts = split(expression, " AND ");
    if parts.len() > 1 {
        return parts.iter().all(|part| is_allowed(part));
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner),
        None => ALLOWED.contains(&expression),
    }
}

/// Splits `expression` at every `separator` outside parentheses.
fn split<'a>(expression: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut depth = 0;
    for (at, c) in expression.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 && at >= begin && expression[at..].starts_with(separator) {
            parts.push(&expression[begin..at]);
            begin = at + separator.len();
        }
    }
    parts.push(&expression[begin..]);
    parts
}

/// Returns what cargo prints.
fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--locked", "--all-features"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("there are packages").clone()
}

fn name(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap_or("?"), package["version"].as_str().unwrap_or("?"))
}

#[test]
fn every_licence_is_allowed() {
    let refused = |package: &Value| {
        let licence = package["license"].as_str().unwrap_or("no licence").to_owned();
        (!is_allowed(&licence)).then(|| (name(package), licence))
    };
    let refused: BTreeMap<String, String> = packages().iter().filter_map(refused).collect();
    assert!(refused.is_empty(), "licences that are not in ALLOWED: {refused:#?}");
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let tree = cargo(&["tree", "--locked", "--edges", "normal", "--duplicates", "--depth", "0", "--prefix", "none"]);
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names, TWICE.map(|(name, _)| name), "in more than one version");
}

#[test]
fn cargo_deny_allows_the_same_licences() {
    let deny = &read(&["deny.toml"], ".toml")[0];
    let (_, rest) = deny.text.split_once("\nallow = [").expect("it has a list of licences");
    let (list, _) = rest.split_once(']').expect("the list ends");
    let licences =
        list.split(',').map(|licence| licence.trim().trim_matches('"')).filter(|licence| !licence.is_empty());
    assert_eq!(licences.collect::<Vec<_>>(), ALLOWED);
}

#[test]
fn no_dependency_needs_a_newer_rust_than_squall_promises() {
    let packages = packages();
    let version = |package: &Value| -> Vec<u64> {
        let text = package["rust_version"].as_str().unwrap_or("1.0");
        text.split('.').map(|part| part.parse().expect("a version is made of numbers")).collect()
    };
    let ours = packages.iter().find(|package| package["name"] == "squall").expect("it is in its own workspace");
    let newer = packages.iter().filter(|package| version(package) > version(ours)).map(name);
    let newer: Vec<String> = newer.collect();
    assert!(newer.is_empty(), "need a newer Rust than {}: {newer:?}", ours["rust_version"]);
}

#[test]
fn a_licence_counts_if_one_alternative_is_allowed() {
    for allowed in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 AND ISC",
        "MIT OR GPL-3.0 AND ISC",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in ["GPL-3.0", "MIT AND AGPL-3.0", "(MIT OR ISC) AND AGPL-3.0", "GPL-3.0/AGPL-3.0", "no licence"] {
        assert!(!is_allowed(refused), "{refused}");
    }
}
