//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// A file, by its path below the root of the repository.
pub(crate) struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Source { path: path.to_owned(), text: text.to_owned() }
    }
}

/// Reads every file below `folders` (or the file of that name) whose name ends with `ending`, in the order of their paths.
pub(crate) fn read(folders: &[&str], ending: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in folders {
        find(&root.join(folder), ending, &mut paths);
    }
    paths.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let below_root = path.strip_prefix(root).expect("it was found below the root");
        Source { path: below_root.display().to_string(), text }
    };
    paths.into_iter().map(source).collect()
}

fn find(path: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        if path.to_string_lossy().ends_with(ending) {
            found.push(path.to_owned());
        }
        return;
    }
    // A folder that was moved must not leave its files unchecked.
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if !path.ends_with("target") {
            find(&path, ending, found);
        }
    }
}
