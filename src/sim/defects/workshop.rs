//! Where defects are planted: a copy of the committed tree, built apart from everything else.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use super::Patch;
use crate::sim::corpus::{Entry, EntryError};
use crate::sim::soak::SeedRange;

/// The profile that planted programs are built with: see Cargo.toml.
const PROFILE: &str = "planted";

/// A copy of the committed tree.
#[derive(Debug)]
pub struct Workshop {
    tree: PathBuf,
    /// One for all defects, kept for the next time: only what a patch touches is built again.
    target: PathBuf,
}

/// Why a defect could not be measured.
#[derive(Debug, Error)]
pub enum WorkshopError {
    /// A program cannot be started.
    #[error("cannot run `{0}`: {1}; `squall defects` needs git and cargo, and to be run in a clone of the repository")]
    Start(&'static str, io::Error),
    /// The tree cannot be copied.
    #[error("cannot copy the committed tree:\n{0}")]
    Copy(String),
    /// The patch does not fit the tree any more.
    #[error("{0} does not apply any more; mend it:\n{1}")]
    DoesNotApply(String, String),
    /// The tree with the patch cannot be built.
    #[error("{0} cannot be built; mend it:\n{1}")]
    DoesNotBuild(String, String),
    /// The planted program refused what it was asked.
    #[error("the program with {0} planted ended with {1}:\n{2}")]
    Refused(String, String, String),
    /// What it wrote cannot be read, or the corpus.
    #[error("{0}")]
    Entry(#[from] EntryError),
}

impl Workshop {
    /// Copies the committed tree of the repository in the current directory to `directory`, or brings the copy that is
    /// there up to date.
    ///
    /// # Errors
    /// There is no repository, or it cannot be copied.
    pub fn open(directory: &Path) -> Result<Workshop, WorkshopError> {
        let (tree, target) = (directory.join("tree"), directory.join("build"));
        let head = git(Path::new("."), &["rev-parse", "HEAD"])?;
        let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        if !tree.join(".git").exists() {
            let path = tree.to_string_lossy();
            copied(git(Path::new("."), &["clone", "--quiet", "--local", "--no-checkout", ".", &path])?)?;
        }
        let origin = std::path::absolute(".").map_err(|error| WorkshopError::Start("git", error))?;
        copied(git(&tree, &["fetch", "--quiet", &origin.to_string_lossy(), &head])?)?;
        copied(git(&tree, &["checkout", "--quiet", "--force", "--detach", &head])?)?;
        Ok(Workshop { tree, target })
    }

    /// Plants a defect and builds the program. The one that was planted before is gone.
    ///
    /// # Errors
    /// The patch does not apply, or the tree cannot be built with it.
    pub fn plant(&self, patch: &Patch) -> Result<Planted, WorkshopError> {
        copied(git(&self.tree, &["checkout", "--quiet", "--force", "HEAD"])?)?;
        let path = std::path::absolute(&patch.path).map_err(|error| WorkshopError::Start("git", error))?;
        let applied = git(&self.tree, &["apply", &path.to_string_lossy()])?;
        if !applied.status.success() {
            return Err(WorkshopError::DoesNotApply(patch.path.display().to_string(), errors_of(&applied)));
        }
        let target = std::path::absolute(&self.target).map_err(|error| WorkshopError::Start("cargo", error))?;
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--bin", "squall", "--profile", PROFILE, "--target-dir"])
            .arg(&target)
            .current_dir(&self.tree)
            .output()
            .map_err(|error| WorkshopError::Start("cargo", error))?;
        if !built.status.success() {
            return Err(WorkshopError::DoesNotBuild(patch.path.display().to_string(), errors_of(&built)));
        }
        Ok(Planted {
            program: target.join(PROFILE).join("squall"),
            name: patch.name.clone(),
            entry: target.join("entry.json"),
        })
    }
}

/// The program with a defect.
#[derive(Debug)]
pub struct Planted {
    program: PathBuf,
    name: String,
    /// Where it writes what it has shrunk.
    entry: PathBuf,
}

/// What a search came to.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// How many seeds it took.
    pub seeds: u64,
    /// The last of them, which found it.
    pub seed: u64,
}

impl Planted {
    /// Looks for the defect in a range of seeds. None if no seed of it fails as the defect has to make it fail.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn search(&self, patch: &Patch, seeds: SeedRange, jobs: usize) -> Result<Option<Search>, WorkshopError> {
        let scenario = patch.scenario.to_string();
        let (seeds, jobs) = (seeds.to_string(), jobs.to_string());
        let arguments = [
            "soak",
            "--json",
            "--scenario",
            &scenario,
            "--seeds",
            &seeds,
            "--jobs",
            &jobs,
            "--until",
            &patch.invariant,
        ];
        let output = self.run(&arguments)?;
        let lines = String::from_utf8_lossy(&output.stdout);
        match output.status.code() {
            // One JSON object a seed, in the order of the seeds; the last one is the one that was found.
            Some(0) => {
                let last = lines.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                let seed = last.and_then(|verdict| verdict["seed"].as_u64());
                Ok(seed.map(|seed| Search { seeds: lines.lines().count() as u64, seed }))
            }
            Some(1) => Ok(None),
            _ => Err(self.refused(&output)),
        }
    }

    /// Shrinks the plan of a seed that found the defect.
    ///
    /// # Errors
    /// The program cannot be run, or the seed does not find it.
    pub fn shrink(&self, patch: &Patch, seed: u64, runs: usize) -> Result<Entry, WorkshopError> {
        let (scenario, seed, runs) = (patch.scenario.to_string(), seed.to_string(), runs.to_string());
        let file = self.entry.to_string_lossy();
        let arguments = ["shrink", "--json", "--scenario", &scenario, "--seed", &seed, "--failure", &patch.invariant];
        let output = self.run(&[&arguments[..], &["--runs", &runs, "--out", &file]].concat())?;
        match output.status.code() {
            Some(0) => Ok(Entry::read(&self.entry)?),
            _ => Err(self.refused(&output)),
        }
    }

    /// Whether an entry of the corpus fails with the defect, as it did when it was kept.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn fails_on(&self, entry: &Path) -> Result<bool, WorkshopError> {
        let output = self.run(&["replay", "--json", &entry.to_string_lossy()])?;
        let verdict: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
        match (output.status.code(), verdict) {
            (Some(0 | 1), Some(verdict)) => Ok(verdict["verdict"] != "passed"),
            _ => Err(self.refused(&output)),
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, WorkshopError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command.output().map_err(|error| WorkshopError::Start("squall", error))
    }

    fn refused(&self, output: &Output) -> WorkshopError {
        WorkshopError::Refused(self.name.clone(), output.status.to_string(), errors_of(output))
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Result<Output, WorkshopError> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(directory);
    command.output().map_err(|error| WorkshopError::Start("git", error))
}

fn copied(output: Output) -> Result<(), WorkshopError> {
    if output.status.success() { Ok(()) } else { Err(WorkshopError::Copy(errors_of(&output))) }
}

fn errors_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Real time, for what is reported alone.
pub(super) struct Stopwatch {
    since: std::time::Instant,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "real duration is reported, and nothing depends on it")]
    pub fn start() -> Self {
        Stopwatch { since: std::time::Instant::now() }
    }

    pub fn elapsed_s(&self) -> u64 {
        self.since.elapsed().as_secs()
    }
}
