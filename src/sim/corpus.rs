//! The corpus: findings that must never come back.
//!
//! One file for each, with the plan that showed it, cut down to what matters. A plan outlives every change to how plans
//! are drawn from seeds. It does not outlive every change to what it meets: a plan that no longer comes to the rare
//! situations that made it fail passes for nothing. So an entry says which those were, and is stale when one is missing.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::engine::EngineName;
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
    /// The invariant that was violated, or how else it failed.
    pub catches: String,
    /// The patch under `sims/defects` that plants the defect again, if there is one.
    pub defect: Option<String>,
    /// What happened, and why.
    pub story: String,
    /// The marks that a run of it reaches, and the families of faults that take effect in it.
    pub reaches: Vec<String>,
    /// The engine that shows it.
    pub engine: EngineName,
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: u32,
    catches: String,
    defect: Option<String>,
    story: String,
    reaches: Vec<String>,
    #[serde(default)]
    engine: EngineName,
    plan: Value,
}

impl Entry {
    /// Reads the entry in the file `path`.
    ///
    /// # Errors
    /// It cannot be read, is malformed, of another version, or its plan cannot be used.
    pub fn read(path: &Path) -> Result<Entry, EntryError> {
        let Form { format, catches, defect, story, reaches, engine, plan } =
            serde_json::from_str(&std::fs::read_to_string(path)?)?;
        if format != FORMAT {
            return Err(EntryError::UnknownFormat(format));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Entry { name, catches, defect, story, reaches, engine, plan: Plan::load(&plan.to_string())? })
    }

    /// Writes the entry to the file `path`, one operation or fault a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_json())
    }

    /// The entry as its file has it.
    fn to_json(&self) -> String {
        let Entry { name: _, catches, defect, story, reaches, engine, plan } = self;
        let mut text = format!("{{\n  \"format\": {FORMAT},\n");
        for (field, value) in [
            ("catches", json!(catches)),
            ("defect", json!(defect)),
            ("story", json!(story)),
            ("reaches", json!(reaches)),
            ("engine", json!(engine)),
        ] {
            let _ = writeln!(text, "  \"{field}\": {value},");
        }
        let plan = serde_json::to_value(plan).expect("a plan is plain data");
        let fields = plan.as_object().expect("a plan has fields").iter().map(|(field, value)| match value {
            Value::Array(items) if !items.is_empty() => {
                let items: Vec<String> = items.iter().map(|item| format!("\n      {item}")).collect();
                format!("    \"{field}\": [{}\n    ]", items.join(","))
            }
            value => format!("    \"{field}\": {value}"),
        });
        let _ = writeln!(text, "  \"plan\": {{\n{}\n  }}\n}}", fields.collect::<Vec<_>>().join(",\n"));
        text
    }

    /// What a run of its plan reaches, as an entry says it.
    pub fn reached(verdict: &Verdict) -> Vec<String> {
        let marks = verdict.marks.iter().filter(|(_, count)| **count > 0).map(|(mark, _)| (*mark).to_owned());
        marks.chain(verdict.faults_by_family.keys().map(|family| (*family).to_owned())).collect()
    }

    /// What the entry says that a run of it reaches and this one did not. An entry with any of that is stale: it has to
    /// be found anew.
    pub fn missing(&self, verdict: &Verdict) -> Vec<String> {
        let reached = Entry::reached(verdict);
        self.reaches.iter().filter(|mark| !reached.contains(mark)).cloned().collect()
    }

    /// Runs its plan. What it caught has come back unless the verdict is that it passed.
    pub fn replay(&self) -> Verdict {
        self.replay_on(self.engine)
    }

    /// The same on another engine, without the faults that it cannot inject.
    pub fn replay_on(&self, engine: EngineName) -> Verdict {
        runner::judge_on(engine, &self.plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::{Fault, FaultEntry, Operation, OperationKind};
    use crate::sim::testing::small_plan;

    fn entry() -> Entry {
        let plan = Plan {
            operations: vec![Operation::new(3_000, OperationKind::Send { room: 1 })],
            faults: vec![FaultEntry { at_ms: 4_000, fault: Fault::Cut { a: "worker1".into(), b: "writer1".into() } }],
            ..small_plan()
        };
        Entry {
            name: "entry".into(),
            catches: "no_missed_rows".into(),
            defect: None,
            story: "Once upon \"a time\"".into(),
            reaches: vec!["set_up".into(), "cut".into()],
            engine: EngineName::Turmoil,
            plan,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let (entry, folder) = (entry(), std::env::temp_dir().join(format!("squall-corpus-{}", std::process::id())));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("entry.json");
        entry.write(&path).unwrap();
        let read = Entry::read(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((read.name, read.catches, read.story), (entry.name, entry.catches, entry.story));
        assert_eq!((read.reaches, read.engine, read.plan), (entry.reaches, entry.engine, entry.plan));
    }

    #[test]
    fn an_entry_is_stale_when_its_run_no_longer_comes_to_what_it_came_to() {
        let mut entry = entry();
        assert_eq!(entry.missing(&entry.replay()), [""; 0]);
        // Before anybody is connected there is nothing to cut.
        entry.plan.faults[0].at_ms = 0;
        assert_eq!(entry.missing(&entry.replay()), ["cut"]);
    }
}
