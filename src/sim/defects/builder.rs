//! Builds the program with a defect, in a copy of the committed tree.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use super::Patch;
use crate::sim::corpus::{Entry, EntryError};
use crate::sim::soak::SeedRange;

/// The Cargo profile of programs with a defect. See Cargo.toml.
const PROFILE: &str = "planted";

/// A copy of the committed tree, in which defects are planted one after another.
#[derive(Debug)]
pub struct DefectBuilder {
    tree: PathBuf,
    /// The target directory. It serves all defects and later measurements, so that only the code that a patch touches is
    /// built again.
    target: PathBuf,
}

/// A defect that could not be measured.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A program cannot be started.
    #[error("cannot run `{0}`: {1}; `squall defects` needs git and cargo, and runs in a clone of the repository")]
    Start(&'static str, io::Error),
    /// The tree cannot be copied.
    #[error("cannot copy the committed tree:\n{0}")]
    Copy(String),
    /// The patch does not apply to the tree.
    #[error("{0} does not apply to the committed tree; update the patch:\n{1}")]
    DoesNotApply(String, String),
    /// The tree with the patch cannot be built.
    #[error("the tree with {0} cannot be built; update the patch:\n{1}")]
    DoesNotBuild(String, String),
    /// The program with the defect failed.
    #[error("the program with the defect {0} ended with {1}:\n{2}")]
    Failed(String, String, String),
    /// An entry that the program wrote, or an entry of the corpus, cannot be read.
    #[error("{0}")]
    Entry(#[from] EntryError),
}

impl DefectBuilder {
    /// Copies the committed tree of the repository in the current directory to `directory`, or brings the copy that is
    /// there up to date.
    ///
    /// # Errors
    /// The current directory is not in a repository, or the repository cannot be copied.
    pub fn open(directory: &Path) -> Result<DefectBuilder, BuildError> {
        let tree = directory.join("tree");
        let target = directory.join("build");
        let head = git(Path::new("."), &["rev-parse", "HEAD"])?;
        let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        if !tree.join(".git").exists() {
            let path = tree.to_string_lossy();
            check_copy(git(Path::new("."), &["clone", "--quiet", "--local", "--no-checkout", ".", &path])?)?;
        }
        let origin = std::path::absolute(".").map_err(|error| BuildError::Start("git", error))?;
        check_copy(git(&tree, &["fetch", "--quiet", &origin.to_string_lossy(), &head])?)?;
        check_copy(git(&tree, &["checkout", "--quiet", "--force", "--detach", &head])?)?;
        Ok(DefectBuilder { tree, target })
    }

    /// Plants a defect and builds the program. The defect that was planted before is removed.
    ///
    /// # Errors
    /// The patch does not apply, or the tree with it cannot be built.
    pub fn plant(&self, patch: &Patch) -> Result<PlantedProgram, BuildError> {
        check_copy(git(&self.tree, &["checkout", "--quiet", "--force", "HEAD"])?)?;
        let path = std::path::absolute(&patch.path).map_err(|error| BuildError::Start("git", error))?;
        let applied = git(&self.tree, &["apply", &path.to_string_lossy()])?;
        if !applied.status.success() {
            return Err(BuildError::DoesNotApply(patch.path.display().to_string(), errors_of(&applied)));
        }
        let target = std::path::absolute(&self.target).map_err(|error| BuildError::Start("cargo", error))?;
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--bin", "squall", "--profile", PROFILE, "--target-dir"])
            .arg(&target)
            .current_dir(&self.tree)
            .output()
            .map_err(|error| BuildError::Start("cargo", error))?;
        if !built.status.success() {
            return Err(BuildError::DoesNotBuild(patch.path.display().to_string(), errors_of(&built)));
        }
        Ok(PlantedProgram {
            program: target.join(PROFILE).join("squall"),
            name: patch.name.clone(),
            entry: target.join("entry.json"),
        })
    }
}

/// The program with a defect.
#[derive(Debug)]
pub struct PlantedProgram {
    program: PathBuf,
    /// The defect's name.
    name: String,
    /// The file to which the program writes the entry of a shrunk plan.
    entry: PathBuf,
}

/// A search that found the defect.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Number of seeds that were run.
    pub seeds: u64,
    /// The last of them, which found the defect.
    pub seed: u64,
}

impl PlantedProgram {
    /// Runs a range of seeds until one fails in the way that the patch names. Returns none if no seed does.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn search(&self, patch: &Patch, seeds: SeedRange, jobs: NonZeroUsize) -> Result<Option<Search>, BuildError> {
        let scenario = patch.scenario.to_string();
        let seeds = seeds.to_string();
        let jobs = jobs.to_string();
        let arguments = [
            "soak",
            "--json",
            "--scenario",
            &scenario,
            "--seeds",
            &seeds,
            "--jobs",
            &jobs,
            "--stop-on",
            &patch.invariant,
        ];
        let output = self.run(&arguments)?;
        let lines = String::from_utf8_lossy(&output.stdout);
        match output.status.code() {
            // The output has one JSON object for each seed, in the order of the seeds. The last one failed.
            Some(0) => {
                let last = lines.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                let seed = last.and_then(|verdict| verdict["seed"].as_u64());
                Ok(seed.map(|seed| Search { seeds: lines.lines().count() as u64, seed }))
            }
            Some(1) => Ok(None),
            _ => Err(self.failed(&output)),
        }
    }

    /// Shrinks the plan of a seed that found the defect.
    ///
    /// # Errors
    /// The program cannot be run, or the seed does not find the defect.
    pub fn shrink(&self, patch: &Patch, seed: u64, runs: usize) -> Result<Entry, BuildError> {
        let scenario = patch.scenario.to_string();
        let seed = seed.to_string();
        let runs = runs.to_string();
        let file = self.entry.to_string_lossy();
        let arguments = ["shrink", "--json", "--scenario", &scenario, "--seed", &seed, "--failure", &patch.invariant];
        let output = self.run(&[&arguments[..], &["--runs", &runs, "--out", &file]].concat())?;
        match output.status.code() {
            Some(0) => Ok(Entry::read(&self.entry)?),
            _ => Err(self.failed(&output)),
        }
    }

    /// Returns true if an entry of the corpus fails with the defect.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn fails_on(&self, entry: &Path) -> Result<bool, BuildError> {
        let output = self.run(&["replay", "--json", &entry.to_string_lossy()])?;
        let verdict: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
        match (output.status.code(), verdict) {
            (Some(0 | 1), Some(verdict)) => Ok(verdict["verdict"] != "passed"),
            _ => Err(self.failed(&output)),
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, BuildError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command.output().map_err(|error| BuildError::Start("squall", error))
    }

    fn failed(&self, output: &Output) -> BuildError {
        BuildError::Failed(self.name.clone(), output.status.to_string(), errors_of(output))
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Result<Output, BuildError> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(directory);
    command.output().map_err(|error| BuildError::Start("git", error))
}

fn check_copy(output: Output) -> Result<(), BuildError> {
    if output.status.success() { Ok(()) } else { Err(BuildError::Copy(errors_of(&output))) }
}

fn errors_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Measures real time, which is only reported.
pub(super) struct Stopwatch {
    since: std::time::Instant,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the real duration is only reported")]
    pub(super) fn start() -> Self {
        Stopwatch { since: std::time::Instant::now() }
    }

    pub(super) fn elapsed_s(&self) -> u64 {
        self.since.elapsed().as_secs()
    }
}
