//! What the storm found once it must not find again.

use std::path::PathBuf;

use squall::judge::invariants;
use squall::sim::corpus::Entry;
use squall::sim::runner::{self, Entropy, Onlookers};

/// Every entry, by name.
fn entries() -> Vec<(String, Entry)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let files = std::fs::read_dir(folder).expect("the corpus is there").map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    let load = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let entry = Entry::load(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (name, entry)
    };
    files.into_iter().map(load).collect()
}

#[test]
fn no_finding_has_come_back() {
    let entries = entries();
    assert!(!entries.is_empty());
    for (name, entry) in entries {
        let verdict = runner::run(&entry.plan, Entropy::Seed, Onlookers::default());
        assert!(verdict.passed(), "{name}: {:?} {:?}\n{}", verdict.violation, verdict.pending, entry.story);
    }
}

#[test]
fn every_entry_tells_what_it_catches_and_how_to_plant_it() {
    for (name, entry) in entries() {
        assert!(invariants::NAMES.contains(&entry.catches.as_str()), "{name} catches {}", entry.catches);
        assert!(entry.story.len() > 100, "{name} has no story");
        if let Some(defect) = entry.defect {
            let patch = format!("{}/sims/defects/{defect}.patch", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::exists(&patch).unwrap(), "{name}: there is no {patch}");
        }
    }
}
