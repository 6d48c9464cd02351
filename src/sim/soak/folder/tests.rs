//! The content of a folder whose soak was interrupted.

use super::*;
use crate::sim::soak::Shard;
use crate::sim::verdict::{Conclusion, Verdict};

/// A folder that is removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("squall-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    fn open(&self) -> Result<(Folder, Recorded), FolderError> {
        Folder::open(&self.0, manifest("0..100"))
    }

    fn seeds(&self) -> Vec<u64> {
        self.open().unwrap().1.seeds.into_iter().collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn manifest(seeds: &str) -> Manifest {
    Manifest::new(EngineName::default(), Scenario::Storm, Seeds::Range(seeds.parse().unwrap(), Shard::WHOLE)).unwrap()
}

fn line(seed: u64) -> String {
    let verdict = Verdict::dead(Scenario::Storm, seed, Conclusion::Crashed, "signal: 6\n\"last words\"".into());
    verdict.report(&verdict.reproduction()).to_json()
}

#[test]
fn a_cut_in_the_last_line_keeps_the_lines_before_it_and_the_line_can_be_written_again() {
    let scratch = Scratch::new("torn-line");
    let (mut folder, _) = scratch.open().unwrap();
    for seed in [4, 2] {
        folder.record(&line(seed)).unwrap();
    }
    drop(folder);
    let file = scratch.0.join("verdicts.jsonl");
    let (whole, last) = (fs::read(&file).unwrap(), line(9));
    let length = last.len();
    // Not every place is tried, because each cut costs the disk several synchronisations.
    for cut in [0, 1, 2, length / 3, length / 2, length - 2, length - 1, length] {
        fs::write(&file, [&whole, &last.as_bytes()[..cut]].concat()).unwrap();
        assert_eq!(scratch.seeds(), [2, 4], "cut after {cut} bytes");
        scratch.open().unwrap().0.record(&last).unwrap();
        assert_eq!(scratch.seeds(), [2, 4, 9], "cut after {cut} bytes");
    }
}

#[test]
fn recorded_verdicts_are_counted_like_new_ones() {
    let scratch = Scratch::new("recount");
    let (mut folder, _) = scratch.open().unwrap();
    folder.record(&line(4)).unwrap();
    drop(folder);
    let (_folder, recorded) = scratch.open().unwrap();
    assert_eq!((recorded.tally.seeds, &recorded.tally.failed[..]), (1, &[4][..]));
    assert_eq!(recorded.tally.fingerprints["crashed"].first, 4);
}

#[test]
fn another_soak_is_refused_with_the_argument_that_differs() {
    let scratch = Scratch::new("another");
    let (folder, _) = scratch.open().unwrap();
    folder.finish(true, &Tally::default()).unwrap();
    let error = Folder::open(&scratch.0, manifest("0..200")).unwrap_err().to_string();
    assert!(error.contains(r#"seeds "0..100", not "0..200""#), "{error}");
    assert!(scratch.0.join("summary.json").exists(), "the other soak's summary is still there");
}

#[test]
fn a_folder_in_use_is_not_opened_again() {
    let scratch = Scratch::new("locked");
    let (_folder, _) = scratch.open().unwrap();
    assert!(matches!(scratch.open(), Err(FolderError::Locked(_))));
}

#[test]
fn verdicts_that_no_soak_wrote_are_refused() {
    let scratch = Scratch::new("malformed");
    drop(scratch.open().unwrap());
    let file = scratch.0.join("verdicts.jsonl");
    fs::write(&file, format!("{}\n{}\n", line(1), line(1))).unwrap();
    assert!(scratch.open().unwrap_err().to_string().ends_with("line 2: a second verdict on seed 1"));
    fs::write(&file, format!("{}\nnot JSON\n", line(1))).unwrap();
    assert!(matches!(scratch.open(), Err(FolderError::Malformed { line: 2, .. })));
    fs::remove_file(scratch.0.join("soak.json")).unwrap();
    assert!(matches!(scratch.open(), Err(FolderError::Unknown(_))));
}

#[test]
fn a_resumed_soak_is_not_complete_until_it_ends() {
    let scratch = Scratch::new("complete");
    let summary = scratch.0.join("summary.json");
    let complete =
        || serde_json::from_slice::<serde_json::Value>(&fs::read(&summary).unwrap()).unwrap()["complete"] == true;
    let (folder, recorded) = scratch.open().unwrap();
    assert!(!summary.exists());
    folder.finish(true, &recorded.tally).unwrap();
    assert!(complete());
    let (folder, recorded) = scratch.open().unwrap();
    assert!(!summary.exists());
    folder.finish(false, &recorded.tally).unwrap();
    assert!(!complete());
}
