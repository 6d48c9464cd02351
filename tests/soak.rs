//! Soaks survive seeds that hang, crash or take too much memory, and can be resumed after they were killed.

#[path = "support/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use program::{command as squall, output, refused};

/// Most time for any wait. Each takes a second or two, unless the machine is busy.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Returns the verdicts on standard output, by seed. Checks that the seeds ascend.
fn verdicts(output: &Output) -> BTreeMap<u64, Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let verdicts: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let seeds: Vec<u64> = verdicts.iter().map(|verdict| verdict["seed"].as_u64().unwrap()).collect();
    assert!(seeds.is_sorted_by(|a, b| a < b), "{seeds:?}");
    seeds.into_iter().zip(verdicts).collect()
}

/// The folder of a soak, removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("squall-soak-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Returns the seeds that have a verdict, in the order of arrival. An unfinished line does not count.
    fn seeds(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.0.join("verdicts.jsonl")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str::<Value>(line).unwrap()["seed"].as_u64().unwrap()).collect()
    }

    fn summary(&self) -> Option<Value> {
        let text = fs::read_to_string(self.0.join("summary.json")).ok()?;
        Some(serde_json::from_str(&text).expect("it is whole"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running soak, killed at the end of the test.
struct Soak(Child);

impl Soak {
    fn start(command: &mut Command) -> Self {
        Soak(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("squall runs"))
    }

    /// Kills the soak with SIGKILL.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Stops the soak with SIGTERM.
    fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the test waits for other processes, in real time")]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < WAIT_MAX, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_soak_killed_again_and_again_ends_with_each_seed_once() {
    let folder = Folder::new("killed");
    let arguments = ["soak", "--seeds", "0..24", "--jobs", "2", "--out", folder.path()];
    for lines in [0, 1, 5, 11, 12] {
        let mut soak = Soak::start(&mut squall(&arguments));
        eventually("the next verdicts", || folder.seeds().len() >= lines);
        soak.kill();
        assert_eq!(folder.summary(), None, "an unfinished soak has no summary");
    }
    // A kill in the middle of a line would leave half a line.
    let file = folder.0.join("verdicts.jsonl");
    let written = fs::read(&file).unwrap();
    fs::write(&file, &written[..written.len() - 7]).unwrap();
    let kept = folder.seeds().len() as u64;
    assert!((11..24).contains(&kept), "the test proves nothing");

    let last = output(&arguments);
    assert_eq!(last.status.code(), Some(0), "{}", String::from_utf8_lossy(&last.stderr));
    let mut seeds = folder.seeds();
    seeds.sort_unstable();
    assert!(seeds.into_iter().eq(0..24));
    let summary = folder.summary().unwrap();
    assert_eq!((&summary["complete"], &summary["seeds"]), (&true.into(), &24.into()));
    assert_eq!(summary["verdicts"]["passed"], 24);
    // The summary is the same as that of an uninterrupted soak.
    let undisturbed = Folder::new("undisturbed");
    output(&["soak", "--seeds", "0..24", "--jobs", "2", "--out", undisturbed.path()]);
    assert_eq!(summary, undisturbed.summary().unwrap());
}

#[test]
fn a_complete_soak_runs_no_seed_again() {
    let folder = Folder::new("over");
    let arguments = ["soak", "--seeds", "0..3", "--json", "--out", folder.path()];
    assert_eq!(verdicts(&output(&arguments)).len(), 3);
    let again = output(&arguments);
    assert_eq!((again.status.code(), verdicts(&again).len()), (Some(0), 0));
    assert_eq!(folder.summary().unwrap()["seeds"], 3);
}

#[test]
fn a_seed_that_hangs_and_one_that_crashes_are_findings_and_the_rest_still_runs() {
    let folder = Folder::new("findings");
    let arguments = ["soak", "--seeds", "0..8", "--jobs", "2", "--timeout", "10s", "--json", "--out", folder.path()];
    let mut command = squall(&arguments);
    let found = command.env("SQUALL_TEST_HANG_SEED", "2").env("SQUALL_TEST_CRASH_SEED", "5").output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stderr));
    let verdicts = verdicts(&found);
    let ends: Vec<&str> = verdicts.values().map(|verdict| verdict["verdict"].as_str().unwrap()).collect();
    assert_eq!(ends, ["passed", "passed", "hung", "passed", "passed", "crashed", "passed", "passed"]);
    let death = |seed| verdicts[&seed]["death"].as_str().unwrap();
    assert!(death(2).starts_with("killed after 10 s"), "{}", death(2));
    assert!(death(5).starts_with("signal: 6"), "{}", death(5));
    assert!(death(5).ends_with("crashing at seed 5, as asked"), "{}", death(5));
    assert_eq!(verdicts[&5]["reproduction"], "cargo run --release -- run --scenario storm --seed 5");

    let summary = folder.summary().unwrap();
    assert_eq!(summary["complete"], true);
    let mut failed: Vec<u64> = serde_json::from_value(summary["failed"].clone()).unwrap();
    failed.sort_unstable();
    assert_eq!(failed, [2, 5]);
    assert_eq!(summary["fingerprints"]["hung"]["first"], 2);
    // The next command still reports the finding.
    assert_eq!(output(&arguments).status.code(), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn a_seed_that_takes_too_much_memory_is_a_finding() {
    let mut command = squall(&["soak", "--seeds", "0..3", "--memory", "300", "--json"]);
    let found = command.env("SQUALL_TEST_SWELL_SEED", "1").output().unwrap();
    let verdicts = verdicts(&found);
    let ends: Vec<&str> = verdicts.values().map(|verdict| verdict["verdict"].as_str().unwrap()).collect();
    assert_eq!(ends, ["passed", "out_of_memory", "passed"]);
    assert!(verdicts[&1]["death"].as_str().unwrap().contains("above its limit of 300 MiB"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_soak_leaves_no_process_behind() {
    // One process hangs, so that only the end of its parent can end it.
    let mut command = squall(&["soak", "--seeds", "0..1000", "--jobs", "2"]);
    let mut soak = Soak::start(command.env("SQUALL_TEST_HANG_SEED", "1"));
    let parent = soak.0.id();
    let mut children = Vec::new();
    eventually("both processes", || {
        let tasks = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        children = tasks.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()).collect();
        children.len() == 2
    });
    soak.kill();
    // A zombie has ended too.
    let runs = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    eventually("the end of its processes", || !children.iter().any(runs));
}

#[cfg(unix)]
#[test]
fn a_stopped_soak_says_how_to_resume_it_and_is_resumed() {
    let folder = Folder::new("stopped");
    let arguments = ["soak", "--for", "1h", "--from", "40", "--jobs", "2", "--out", folder.path()];
    let mut soak = Soak::start(&mut squall(&arguments));
    eventually("some verdicts", || folder.seeds().len() >= 3);
    soak.terminate();
    assert_eq!(soak.0.wait().unwrap().code(), Some(128 + 15));
    let errors = BufReader::new(soak.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let last_line = errors.last().unwrap();
    assert!(last_line.contains("run the same command again to resume"), "{last_line}");
    assert_eq!(folder.summary().unwrap()["complete"], false);

    let shorter = ["soak", "--for", "1s", "--from", "40", "--jobs", "2", "--out", folder.path()];
    let before = folder.seeds().len();
    assert_eq!(output(&shorter).status.code(), Some(0));
    let mut seeds = folder.seeds();
    assert!(seeds.len() > before);
    seeds.sort_unstable();
    assert!(seeds.iter().copied().eq(40..40 + seeds.len() as u64), "{seeds:?}");
    assert_eq!(folder.summary().unwrap()["complete"], true);
}

#[test]
fn the_shards_of_a_soak_have_each_seed_once() {
    let shard = |shard| output(&["soak", "--seeds", "3..9", "--shard", shard, "--json"]);
    let even = verdicts(&shard("0/2"));
    let odd = verdicts(&shard("1/2"));
    assert!(even.keys().eq(&[4, 6, 8]));
    assert!(odd.keys().eq(&[3, 5, 7]));
}

#[test]
fn a_soak_stops_at_the_failure_that_it_searches_for() {
    let crash = |failure| {
        let mut command = squall(&["soak", "--seeds", "0..6", "--jobs", "2", "--json", "--stop-on", failure]);
        command.env("SQUALL_TEST_CRASH_SEED", "2").output().unwrap()
    };
    let found = crash("crashed");
    assert_eq!((found.status.code(), verdicts(&found).len()), (Some(0), 3));
    let not_found = crash("stuck");
    assert_eq!((not_found.status.code(), verdicts(&not_found).len()), (Some(1), 6));
}

#[test]
fn arguments_that_describe_no_soak_are_refused() {
    refused(&["soak"], "--seeds");
    refused(&["soak", "--seeds", "0..2", "--for", "1h"], "cannot be used with");
    refused(&["soak", "--seeds", "0..2", "--from", "1"], "cannot be used with");
    refused(&["soak", "--for", "8"], "such as 8h, 1h30m or 90s");
    refused(&["soak", "--for", "0s"], "is zero");
    refused(&["soak", "--seeds", "0..2", "--shard", "2/2"], "the shards of 2 are 0/2 to 1/2");
    refused(&["soak", "--seeds", "0..2", "--shard", "half"], "write I/N");
    refused(&["soak", "--seeds", "0..1", "--shard", "1/2"], "has none of the seeds");
    refused(&["soak", "--seeds", "0..2", "--stop-on", "rain"], "no_missed_rows");
    refused(&["soak", "--seeds", "0..2", "--memory", "0"], "0");
    refused(&["soak", "--seeds", "0..2", "--timeout", "soon"], "such as 8h, 1h30m or 90s");
}

#[test]
fn a_folder_with_another_soak_is_refused_and_left_alone() {
    let folder = Folder::new("another");
    output(&["soak", "--seeds", "0..2", "--jobs", "1", "--out", folder.path()]);
    refused(&["soak", "--seeds", "0..3", "--out", folder.path()], r#"seeds "0..2", not "0..3""#);
    refused(&["soak", "--for", "1h", "--out", folder.path()], r#"seeds "0..2", not "0..""#);
    refused(&["soak", "--seeds", "0..2", "--scenario", "swarm", "--out", folder.path()], "scenario");
    refused(&["soak", "--seeds", "0..2", "--shard", "0/2", "--out", folder.path()], r#"shard "0/1", not "0/2""#);
    assert_eq!((folder.seeds(), &folder.summary().unwrap()["complete"]), (vec![0, 1], &true.into()));
    refused(&["soak", "--seeds", "0..2", "--out", "/dev/null/soak"], "/dev/null/soak");
}
