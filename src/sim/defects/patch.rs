//! A defect as a patch: headers, a story, and what to change.
//!
//! ```text
//! Upstream: where it is known from
//! Invariant: what it violates, or how else its runs end: stuck, panicked, hung, crashed, out_of_memory
//! Scenario: in which it is looked for; storm if there is no such header
//! Rare: why it takes more seeds than are looked through; its entry of the corpus must find it instead
//!
//! The story.
//!
//! diff --git ...
//! ```

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::judge::invariants;
use crate::sim::plan::{Scenario, UnknownScenario};
use crate::sim::verdict::Conclusion;

/// A defect that can be planted.
#[derive(Debug, Clone)]
pub struct Patch {
    /// The name of its file, without the ending.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Where it is known from.
    pub upstream: String,
    /// What it violates, or how else its runs end.
    pub invariant: String,
    /// In which scenario it is looked for.
    pub scenario: Scenario,
    /// Why it is not found within the seeds that are looked through, if it is not.
    pub rare: Option<String>,
    /// What is wrong, and what comes of it.
    pub story: String,
}

/// Why a file is no defect that can be planted.
#[derive(Debug, Error)]
pub enum PatchError {
    /// It cannot be read.
    #[error("cannot read {0}: {1}; defects are named by their files under sims/defects, without the ending")]
    Read(PathBuf, io::Error),
    /// A header is missing.
    #[error("{0} has no line `{1}: ...` above the diff: add one")]
    NoHeader(PathBuf, &'static str),
    /// It names a scenario that there is none of.
    #[error("{0}: {1}")]
    Scenario(PathBuf, UnknownScenario),
    /// It names an invariant that there is none of.
    #[error("{0} names the invariant `{1}`: use one of {names}, or how its runs end, such as stuck", names = invariants::NAMES.join(", "))]
    Invariant(PathBuf, String),
}

impl Patch {
    /// Reads the file of a defect.
    ///
    /// # Errors
    /// It cannot be read, or its headers are not as they have to be.
    pub fn read(path: &Path) -> Result<Patch, PatchError> {
        let text = std::fs::read_to_string(path).map_err(|error| PatchError::Read(path.to_owned(), error))?;
        let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("diff ")).collect();
        let header = |name: &str| {
            let prefix = format!("{name}: ");
            head.iter().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        let needed = |name| header(name).ok_or_else(|| PatchError::NoHeader(path.to_owned(), name));
        let (upstream, invariant) = (needed("Upstream")?, needed("Invariant")?);
        let ends = |conclusion: Conclusion| conclusion.name() == invariant;
        if !invariants::NAMES.contains(&invariant.as_str()) && !Conclusion::ALL.into_iter().any(ends) {
            return Err(PatchError::Invariant(path.to_owned(), invariant));
        }
        let scenario = header("Scenario").map_or(Ok(Scenario::Storm), |scenario| scenario.parse());
        let story: Vec<&str> = head.iter().copied().skip_while(|line| !line.is_empty()).collect();
        Ok(Patch {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            path: path.to_owned(),
            upstream,
            invariant,
            scenario: scenario.map_err(|error| PatchError::Scenario(path.to_owned(), error))?,
            rare: header("Rare"),
            story: story.join(" ").trim().to_owned(),
        })
    }

    /// Every defect in a directory, by name; those that were measured to cost users of Synapse something first.
    ///
    /// # Errors
    /// The directory or one of them cannot be read.
    pub fn read_all(directory: &Path) -> Result<Vec<Patch>, PatchError> {
        let cannot = |error| PatchError::Read(directory.to_owned(), error);
        let mut patches = Vec::new();
        for file in std::fs::read_dir(directory).map_err(cannot)? {
            let path = file.map_err(cannot)?.path();
            if path.extension().is_some_and(|ending| ending == "patch") {
                patches.push(Patch::read(&path)?);
            }
        }
        patches.sort_by_key(|patch| (!patch.upstream.contains("measured"), patch.name.clone()));
        Ok(patches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_of_this_repository_can_be_read_and_tells_a_story() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/defects");
        let patches = Patch::read_all(&directory).unwrap();
        assert!(patches.len() > 30, "{}", patches.len());
        for patch in &patches {
            assert!(patch.story.len() > 60, "{}: {:?}", patch.name, patch.story);
        }
        assert!(patches[0].upstream.contains("measured"));
    }

    #[test]
    fn a_patch_without_its_headers_or_with_an_unknown_invariant_is_refused() {
        let read = |text: &str| {
            let path = std::env::temp_dir().join(format!("squall-patch-{}.patch", std::process::id()));
            std::fs::write(&path, text).unwrap();
            let error = Patch::read(&path).map(|patch| patch.name).unwrap_err().to_string();
            std::fs::remove_file(&path).unwrap();
            error
        };
        assert!(read("Invariant: stuck\n\ndiff ").contains("`Upstream: ...`"));
        assert!(read("Upstream: none\ndiff \nInvariant: stuck\n").contains("`Invariant: ...`"));
        assert!(read("Upstream: none\nInvariant: rows\n\ndiff ").contains("no_missed_rows"));
        assert!(read("Upstream: none\nInvariant: stuck\nScenario: drizzle\n\ndiff ").contains("storm"));
    }
}
