//! No finding of the corpus returns.

use std::path::PathBuf;

use squall::sim::corpus::Entry;
use squall::sim::failures;

/// Reads every entry, sorted by name.
fn entries() -> Vec<Entry> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let files = std::fs::read_dir(folder).expect("the corpus is there").map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    let read = |path: PathBuf| Entry::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    files.into_iter().map(read).collect()
}

#[test]
fn no_finding_has_come_back() {
    let entries = entries();
    assert!(!entries.is_empty());
    for entry in entries {
        let verdict = entry.replay();
        assert!(
            verdict.passed(),
            "{}: {:?} {:?} {:?}\n{}",
            entry.name,
            verdict.violation,
            verdict.pending,
            verdict.panic,
            entry.story
        );
        let missing = entry.missing(&verdict);
        assert!(missing.is_empty(), "{} is stale: its run no longer reaches {missing:?}", entry.name);
    }
}

#[test]
fn every_entry_names_a_failure_a_story_and_the_patch_of_its_defect() {
    for Entry { name, catches, defect, story, .. } in entries() {
        assert!(failures::names().any(|failure| failure == catches), "{name} catches {catches}");
        assert!(story.len() > 100, "{name} has no story");
        if let Some(defect) = defect {
            let patch = format!("{}/sims/defects/{defect}.patch", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::exists(&patch).unwrap(), "{name}: there is no {patch}");
        }
    }
}
