//! The inputs that `cargo fuzz` found worth keeping, and those that once broke a property.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::properties::TARGETS;

/// Largest number of files of a target, and their largest length in bytes. What is kept here is for every test run; a night's
/// fuzzing keeps its own.
const FILES_MAX: usize = 200;
const FILE_BYTES_MAX: usize = 4_096;

/// Returns the paths in a folder of `tests/fuzz`.
fn listed(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_input_of_the_corpus_keeps_the_properties() {
    for (target, property) in TARGETS {
        let files = listed(&format!("corpus/{target}"));
        assert!((5..=FILES_MAX).contains(&files.len()), "{target} has {} files", files.len());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            assert!(bytes.len() <= FILE_BYTES_MAX, "{} has {} bytes", file.display(), bytes.len());
            println!("{}", file.display());
            property(&bytes);
        }
    }
}

#[test]
fn each_property_is_a_target_of_cargo_fuzz() {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let names: BTreeSet<_> = TARGETS.iter().map(|(target, _)| target.to_string()).collect();
    assert_eq!(listed("targets").iter().map(stem).collect::<BTreeSet<_>>(), names);
    let package = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        let source = fs::read_to_string(listed("targets").iter().find(|path| stem(path) == target).unwrap()).unwrap();
        assert!(source.contains(&format!("squall_fuzz::{target}(bytes)")), "{target}");
        assert!(package.contains(&format!("name = \"{target}\"\npath = \"targets/{target}.rs\"")), "{target}");
    }
}
