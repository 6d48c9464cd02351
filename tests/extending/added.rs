//! The invariant, the fault and the stream of `docs/extending.md` are added to a copy of the sources, and their unit tests
//! run there.
//!
//! The test copies the examples, and applies the changes that the document shows. A change is a block of type `diff`
//! after a comment `<!-- changed: PATH -->`. So the document has every line that a new part needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::quotes::{blocks, read};

/// Each example in `docs/examples`, and the path that it is copied to.
const FILES: [(&str, &str); 3] = [
    ("frozen_stands_still.rs", "crates/squall-judge/src/invariants/frozen_stands_still.rs"),
    ("isolation.rs", "src/sim/faults/isolation.rs"),
    ("pushers.rs", "src/store/pushers.rs"),
];

/// The files that the document changes, each by one line.
const CHANGED: [&str; 3] = ["crates/squall-judge/src/invariants/mod.rs", "src/sim/faults/mod.rs", "src/store/mod.rs"];

/// The crates of the sources. The copy's are built quickly, because few of their tests run.
const CRATES: [&str; 5] = ["squall", "squall-env", "squall-judge", "squall-netsim", "squall-protocol"];

/// The unit tests to run: one of each example.
const TESTS: [&str; 3] = [
    "frozen_stands_still::tests::a_frozen_process_applies_no_rows",
    "isolation::tests::an_isolation_counts_where_it_held_a_packet",
    "store::pushers::tests::only_the_newest_state_of_a_pusher_is_read",
];

/// The line of the workspace's version, and the copy's.
///
/// The copy is built in the target directory of the sources, to share their dependencies. Cargo would take its crates for
/// those of the sources if they had the same version.
const VERSIONS: [&str; 2] = ["\nversion = \"0.1.0\"\n", "\nversion = \"0.1.999\"\n"];

/// Makes a copy of the sources, and returns its path. The copy has links to everything that is not compiled.
fn copy_sources() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("extending");
    if copy.exists() {
        fs::remove_dir_all(&copy).expect("the last copy can be removed");
    }
    fs::create_dir_all(&copy).expect("the copy can be made");
    for entry in fs::read_dir(root).expect("the sources are there") {
        let name = entry.expect("the sources can be listed").file_name();
        if name == "src" || name == "crates" {
            copy_directory(&root.join(&name), &copy.join(&name));
        } else if name == "Cargo.toml" || name == "Cargo.lock" {
            fs::copy(root.join(&name), copy.join(&name)).expect("a file can be copied");
        } else if name != "target" && name != ".git" {
            std::os::unix::fs::symlink(root.join(&name), copy.join(&name)).expect("a link can be made");
        }
    }
    let manifest = fs::read_to_string(copy.join("Cargo.toml")).expect("the manifest can be read");
    assert_eq!(manifest.matches(VERSIONS[0]).count(), 1, "the manifest has the version once");
    fs::write(copy.join("Cargo.toml"), manifest.replace(VERSIONS[0], VERSIONS[1])).expect("the copy can be changed");
    copy
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("the directory can be read") {
        let entry = entry.expect("the directory can be listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("an entry has a type").is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// Applies the block `diff` to the file at `path`. The block has the lines around the change, and one new line.
fn apply(copy: &Path, path: &str, diff: &str) {
    let lines = |kept: fn(&str) -> bool| -> String {
        diff.lines().filter(|line| kept(line)).map(|line| format!("{}\n", &line[1..])).collect()
    };
    let (old, new) = (lines(|line| !line.starts_with('+')), lines(|_| true));
    assert_eq!(diff.lines().filter(|line| line.starts_with('+')).count(), 1, "{path} is changed by one line");
    let text = fs::read_to_string(copy.join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    assert_eq!(text.matches(&old).count(), 1, "{path} has these lines once:\n{old}");
    fs::write(copy.join(path), text.replace(&old, &new)).expect("the copy can be changed");
}

#[test]
fn an_invariant_a_fault_and_a_stream_are_files_of_their_own_and_one_line_in_each_list() {
    let copy = copy_sources();
    for (example, path) in FILES {
        assert!(!copy.join(path).exists(), "{path} exists already");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(example);
        fs::copy(&example, copy.join(path)).unwrap_or_else(|error| panic!("cannot add {path}: {error}"));
    }
    let document = read("docs/extending.md");
    let changes = blocks(&document, "changed");
    assert_eq!(changes.iter().map(|(path, _)| *path).collect::<Vec<_>>(), CHANGED);
    for (path, diff) in changes {
        apply(&copy, path, diff);
    }
    let mut cargo = Command::new(env!("CARGO"));
    // Cargo set these for this test. Build scripts would run again because of them.
    let of_this_test = |name: &str| ["CARGO_MANIFEST", "CARGO_PKG"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars().filter(|(name, _)| of_this_test(name)) {
        cargo.env_remove(name);
    }
    let output = cargo
        .args(["test", "--workspace", "--lib", "--offline", "--target-dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target directory"))
        .args(CRATES.map(|name| format!("--config=profile.dev.package.{name}.opt-level=0")))
        .args(CRATES.map(|name| format!("--config=profile.dev.package.{name}.debug=false")))
        .arg("--")
        .args(TESTS)
        .current_dir(&copy)
        .output()
        .expect("cargo can be started");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    for test in TESTS {
        assert!(printed.contains(&format!("{test} ... ok")), "{test} did not run:\n{printed}");
    }
}
