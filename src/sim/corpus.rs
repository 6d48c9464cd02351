//! The corpus: findings that must never come back.
//!
//! One file for each, with the plan that showed it, cut down to what matters. A plan outlives every change to how plans
//! are drawn from seeds.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::plan::{Plan, PlanError};
use super::runner;
use super::verdict::Verdict;

/// The version of the entries' form.
pub const FORMAT: u32 = 1;

/// A finding.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name of its file, without the ending.
    pub name: String,
    /// The invariant that was violated.
    pub catches: String,
    /// The patch under `sims/defects` that plants the defect again, if there is one.
    pub defect: Option<String>,
    /// What happened, and why.
    pub story: String,
    /// The plan that shows it.
    pub plan: Plan,
}

/// Why an entry cannot be used.
#[derive(Debug, Error)]
pub enum EntryError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    /// It is not of the form of an entry.
    #[error("not an entry of the corpus: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version.
    #[error("an entry of format {0}, not {FORMAT}: use the version of Squall that wrote it")]
    UnknownFormat(u32),
    /// Its plan cannot be used.
    #[error("its plan: {0}")]
    Plan(#[from] PlanError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: u32,
    catches: String,
    defect: Option<String>,
    story: String,
    plan: Value,
}

impl Entry {
    /// Reads the entry in the file `path`.
    ///
    /// # Errors
    /// It cannot be read, is malformed, of another version, or its plan cannot be used.
    pub fn read(path: &Path) -> Result<Entry, EntryError> {
        let Form { format, catches, defect, story, plan } = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        if format != FORMAT {
            return Err(EntryError::UnknownFormat(format));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Entry { name, catches, defect, story, plan: Plan::load(&plan.to_string())? })
    }

    /// Runs its plan. What it caught has come back unless the verdict is that it passed.
    pub fn replay(&self) -> Verdict {
        runner::judge(&self.plan)
    }
}
