//! A defect as a patch: headers, a story, and a diff.
//!
//! ```text
//! Upstream: the source of the defect, such as an issue of Synapse
//! Invariant: the invariant that it violates, or another failure: stuck, panicked, hung, crashed, out_of_memory
//! Scenario: the scenario whose seeds are searched; storm if there is no such header
//! Needs: the rare situations that it takes, in order; the defect belongs to the deep set
//!
//! The story.
//!
//! diff --git ...
//! ```

use std::io;
use std::path::{Path, PathBuf};

use strum::{EnumString, IntoStaticStr, VariantArray};
use thiserror::Error;

use crate::sim::failures::{current_name, names};
use crate::sim::plan::{Scenario, UnknownScenario};

/// A set of defects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum DefectSet {
    /// Those that a search of seeds finds soon.
    Common,
    /// Those that need two or three rare situations in order. Other ways to search are measured on them.
    Deep,
}

impl DefectSet {
    /// Every set.
    pub const ALL: &'static [DefectSet] = DefectSet::VARIANTS;

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the number of seeds of a range after which a search ends.
    pub fn seeds_max(self) -> u64 {
        match self {
            DefectSet::Common => 1_000,
            DefectSet::Deep => 10_000,
        }
    }
}

/// A defect that can be planted.
#[derive(Debug, Clone)]
pub struct Patch {
    /// The name of the patch's file, without the extension.
    pub name: String,
    /// The patch's file.
    pub path: PathBuf,
    /// The source of the defect.
    pub upstream: String,
    /// The name of the failure: the invariant that it violates, or another conclusion.
    pub invariant: String,
    /// The scenario whose seeds are searched.
    pub scenario: Scenario,
    /// The rare situations that it takes, in order; none for a defect of the common set.
    pub needs: Option<String>,
    /// A description of the defect and its consequences.
    pub story: String,
}

/// A patch that cannot be used.
#[derive(Debug, Error)]
pub enum PatchError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}; name a file under sims/defects, without its extension")]
    Read(PathBuf, io::Error),
    /// A header is missing.
    #[error("{0} has no line `{1}: ...` above the diff: add one")]
    NoHeader(PathBuf, &'static str),
    /// The scenario does not exist.
    #[error("{0}: {1}")]
    Scenario(PathBuf, UnknownScenario),
    /// The invariant does not exist.
    #[error("{0} names the invariant `{1}`, which does not exist: use one of {names}", names = names().collect::<Vec<_>>().join(", "))]
    Invariant(PathBuf, String),
}

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// The file cannot be read, a header is missing, or a header names an unknown scenario or invariant.
    pub fn read(path: &Path) -> Result<Patch, PatchError> {
        let text = std::fs::read_to_string(path).map_err(|error| PatchError::Read(path.to_owned(), error))?;
        let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("diff ")).collect();
        let header = |name: &str| {
            let prefix = format!("{name}: ");
            head.iter().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        let needed = |name| header(name).ok_or_else(|| PatchError::NoHeader(path.to_owned(), name));
        let upstream = needed("Upstream")?;
        let invariant = current_name(&needed("Invariant")?).to_owned();
        if names().all(|name| name != invariant) {
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
            needs: header("Needs"),
            story: story.join(" ").trim().to_owned(),
        })
    }

    /// Returns the set that the defect belongs to.
    pub fn set(&self) -> DefectSet {
        if self.needs.is_some() { DefectSet::Deep } else { DefectSet::Common }
    }

    /// Reads every patch in a directory, sorted by name. Defects that were measured on Synapse come first.
    ///
    /// # Errors
    /// The directory or a patch cannot be read.
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
    fn every_patch_of_this_repository_can_be_read_and_has_a_story() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/defects");
        let patches = Patch::read_all(&directory).unwrap();
        assert!(patches.len() > 30, "{}", patches.len());
        for patch in &patches {
            assert!(patch.story.len() > 60, "{}: {:?}", patch.name, patch.story);
        }
        assert!(patches[0].upstream.contains("measured"));
        let deep = patches.iter().filter(|patch| patch.set() == DefectSet::Deep).count();
        assert!(deep >= 5 && deep < patches.len() / 2, "{deep}");
    }

    #[test]
    fn a_patch_without_its_headers_or_with_an_unknown_invariant_is_refused() {
        let error = |text: &str| read("refused", text).map(|patch| patch.name).unwrap_err().to_string();
        assert!(error("Invariant: stuck\n\ndiff ").contains("`Upstream: ...`"));
        assert!(error("Upstream: none\ndiff \nInvariant: stuck\n").contains("`Invariant: ...`"));
        assert!(error("Upstream: none\nInvariant: rows\n\ndiff ").contains("no_missed_rows"));
        assert!(error("Upstream: none\nInvariant: stuck\nScenario: drizzle\n\ndiff ").contains("storm"));
    }

    #[test]
    fn a_patch_may_name_its_invariant_by_an_old_name() {
        let invariant = |name: &str| {
            let text = format!("Upstream: none\nInvariant: {name}\n\ndiff ");
            read(name, &text).unwrap().invariant
        };
        assert_eq!(invariant("causes_bounded"), "amplification_bounded");
        assert_eq!(invariant("strangers_isolated"), "unknown_rows_isolated");
        assert_eq!(invariant("unknown_rows_isolated"), "unknown_rows_isolated");
    }

    fn read(name: &str, text: &str) -> Result<Patch, PatchError> {
        let path = std::env::temp_dir().join(format!("squall-patch-{}-{name}.patch", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let patch = Patch::read(&path);
        std::fs::remove_file(&path).unwrap();
        patch
    }
}
