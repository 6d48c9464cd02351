//! The corpus: findings that must not return.
//!
//! Each finding has one file, with a shrunk plan that showed it. A plan stays valid when the way in which plans are drawn
//! from seeds changes. It may still lose its worth when the stack changes: a plan that no longer reaches the rare
//! situations that made it fail passes and proves nothing. Therefore an entry lists those situations, and is stale when
//! a run of it does not reach one of them.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::failures::current_name;
use super::faults::present_name;
use super::plan::{Plan, PlanError};
use super::runner;
use super::verdict::Verdict;
use squall_netsim::EngineName;

/// The version of the file format.
pub const FORMAT: u32 = 1;

/// A finding.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name of the entry's file, without the extension.
    pub name: String,
    /// The name of the failure: the violated invariant, or another conclusion. See [`failures`](super::failures).
    pub catches: String,
    /// The patch under `sims/defects` that plants the defect again, if there is one.
    pub defect: Option<String>,
    /// A description of the failure and its cause.
    pub story: String,
    /// The marks that a run of the entry reaches, and the families of faults that take effect in it.
    pub reaches: Vec<String>,
    /// The engine that shows it.
    pub engine: EngineName,
    /// The plan that shows it.
    pub plan: Plan,
}

/// An entry that cannot be used.
#[derive(Debug, Error)]
pub enum EntryError {
    /// The file cannot be read.
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
    /// The file's content is not an entry.
    #[error("not an entry of the corpus: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The entry has another version of the format.
    #[error("the entry has format {0}, not {FORMAT}: use the version of Squall that wrote it")]
    UnknownFormat(u32),
    /// The entry's plan cannot be used.
    #[error("the entry's plan: {0}")]
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
    /// The file cannot be read, is malformed or of another version, or its plan cannot be used.
    pub fn read(path: &Path) -> Result<Entry, EntryError> {
        let Form { format, catches, defect, story, reaches, engine, plan } =
            serde_json::from_str(&std::fs::read_to_string(path)?)?;
        if format != FORMAT {
            return Err(EntryError::UnknownFormat(format));
        }
        let catches = current_name(&catches).to_owned();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let reaches = reaches.iter().map(|name| present_name(name).to_owned()).collect();
        Ok(Entry { name, catches, defect, story, reaches, engine, plan: Plan::load(&plan.to_string())? })
    }

    /// Writes the entry to the file `path`, one operation or fault a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_json())
    }

    /// Returns the content of the entry's file.
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

    /// Returns the marks that a run reached and the families of faults that took effect in it, as an entry lists them.
    pub fn reached(verdict: &Verdict) -> Vec<String> {
        let marks = verdict.marks.iter().filter(|(_, count)| **count > 0).map(|(mark, _)| (*mark).to_owned());
        marks.chain(verdict.faults_by_family.keys().map(|family| (*family).to_owned())).collect()
    }

    /// Returns the situations that the entry lists and a run of it did not reach. An entry that misses one is stale: its
    /// finding has to be found again.
    pub fn missing(&self, verdict: &Verdict) -> Vec<String> {
        let reached = Entry::reached(verdict);
        self.reaches.iter().filter(|mark| !reached.contains(mark)).cloned().collect()
    }

    /// Runs the entry's plan. The finding has returned unless the run passes.
    pub fn replay(&self) -> Verdict {
        self.replay_on(self.engine)
    }

    /// Runs the entry's plan on `engine`, without the faults that this engine cannot inject.
    pub fn replay_on(&self, engine: EngineName) -> Verdict {
        runner::judge_on(engine, &self.plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::faults::Cut;
    use crate::sim::plan::{Fault, FaultEntry, Operation, OperationKind};
    use crate::sim::testing::small_plan;

    fn entry() -> Entry {
        let plan = Plan {
            operations: vec![Operation::new(3_000, OperationKind::Send { room: 1 })],
            faults: vec![FaultEntry {
                at_ms: 4_000,
                fault: Fault::Cut(Cut { a: "worker1".into(), b: "writer1".into() }),
            }],
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

    /// Writes the entry to the file `name`.json in a directory of its own, and reads it from there.
    fn written_and_read(entry: &Entry, name: &str) -> Entry {
        let directory = std::env::temp_dir().join(format!("squall-corpus-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name).with_extension("json");
        entry.write(&path).unwrap();
        let read = Entry::read(&path).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        read
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = entry();
        let read = written_and_read(&entry, "entry");
        assert_eq!((read.name, read.catches, read.story), (entry.name, entry.catches, entry.story));
        assert_eq!((read.reaches, read.engine, read.plan), (entry.reaches, entry.engine, entry.plan));
    }

    #[test]
    fn an_entry_may_name_its_invariant_by_an_old_name() {
        let entry = Entry { catches: "causes_bounded".into(), ..entry() };
        assert_eq!(written_and_read(&entry, "old_name").catches, "amplification_bounded");
    }

    #[test]
    fn an_entry_is_stale_when_its_run_no_longer_reaches_what_it_reached() {
        let mut entry = entry();
        assert_eq!(entry.missing(&entry.replay()), [""; 0]);
        // Before any host is connected there is nothing to cut.
        entry.plan.faults[0].at_ms = 0;
        assert_eq!(entry.missing(&entry.replay()), ["cut"]);
    }
}
