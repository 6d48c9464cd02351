//! `squall shrink`: the least plan that fails as a given one does. `run` and `soak` do the same with what they find.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{CliError, EngineArguments, PlanOfArguments, summary};
use crate::sim::corpus::Entry;
use crate::sim::engine::EngineName;
use crate::sim::plan::Plan;
use crate::sim::runner;
use crate::sim::shrink::{self, RUNS_MAX, Shrunk};
use crate::sim::verdict::STUCK;

/// Where findings are kept if nobody says otherwise.
pub(super) const FOUND: &str = "found";

#[derive(Debug, Args)]
pub(super) struct ShrinkArguments {
    #[command(flatten)]
    plan: PlanOfArguments,
    #[command(flatten)]
    engine: EngineArguments,
    /// Hold on to the first failure with this fingerprint, or of this invariant or kind, instead of the first of all.
    #[arg(long, value_name = "FAILURE")]
    failure: Option<String>,
    /// How many runs it may take.
    #[arg(long, value_name = "N", default_value_t = RUNS_MAX)]
    runs: usize,
    /// Write the entry for the corpus to this file, instead of one of its own name in the directory `found`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write it under its own name to this directory.
    #[arg(long, value_name = "DIR", default_value = FOUND, conflicts_with = "out")]
    keep: PathBuf,
    /// Print what came of it as one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
}

/// What programs are told.
#[derive(Serialize)]
struct Report<'a> {
    fingerprint: &'a str,
    runs: usize,
    cut_short: bool,
    hosts: usize,
    faults: usize,
    operations: usize,
    clients: usize,
    file: &'a Path,
}

pub(super) fn shrink(arguments: &ShrinkArguments) -> Result<ExitCode, CliError> {
    let plan = arguments.plan.load()?;
    let engine = arguments.engine.engine;
    let fingerprints = runner::judge_on(engine, &plan).fingerprints();
    let is_meant = |fingerprint: &&String| {
        let is = |failure: &String| *fingerprint == failure || fingerprint.split('/').next() == Some(failure);
        arguments.failure.as_ref().is_none_or(is)
    };
    let Some(fingerprint) = fingerprints.iter().find(is_meant) else {
        return Err(CliError::DoesNotFail(arguments.failure.clone()));
    };
    let found = Found::shrink(engine, &plan, fingerprint, arguments.runs);
    let found = found.expect("the same plan fails twice in the same way, or draws come from elsewhere than its seed");
    let path = match &arguments.out {
        Some(path) => found.keep_as(path).map(|()| path.clone())?,
        None => found.keep_in(&arguments.keep)?,
    };
    let mut stdout = io::stdout();
    if arguments.json {
        let Shrunk { plan, runs, is_cut_short, .. } = &found.shrunk;
        let report = Report {
            fingerprint,
            runs: *runs,
            cut_short: *is_cut_short,
            hosts: plan.topology.hosts().count(),
            faults: plan.faults.len(),
            operations: plan.operations.len(),
            clients: plan.clients.len(),
            file: &path,
        };
        writeln!(stdout, "{}", serde_json::to_string(&report).expect("it is plain data"))?;
    } else {
        found.tell(&mut stdout, &path)?;
        writeln!(stdout, "cargo run --release -- replay {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A failure, shrunk.
pub(super) struct Found<'a> {
    original: &'a Plan,
    fingerprint: &'a str,
    shrunk: Shrunk,
}

impl<'a> Found<'a> {
    /// Shrinks `plan`, which may take minutes, and says so. None if it does not fail on `engine` with `fingerprint`.
    pub fn shrink(engine: EngineName, original: &'a Plan, fingerprint: &'a str, runs_max: usize) -> Option<Self> {
        eprintln!("shrinking, in {runs_max} runs at the most");
        shrink::shrink(engine, original, fingerprint, runs_max).map(|shrunk| Found { original, fingerprint, shrunk })
    }

    /// Writes it as an entry of the corpus into a directory, which is made if need be. Tells where.
    pub fn keep_in(&self, directory: &Path) -> Result<PathBuf, CliError> {
        std::fs::create_dir_all(directory).map_err(|error| CliError::Create(directory.to_owned(), error))?;
        let name = format!("{}-{}-{}.json", self.fingerprint, self.original.scenario, self.original.seed);
        // A panic's message may hold anything.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let path = directory.join(name.chars().map(plain).collect::<String>());
        self.keep_as(&path).map(|()| path)
    }

    fn keep_as(&self, path: &Path) -> Result<(), CliError> {
        let verdict = &self.shrunk.verdict;
        let kind = self.fingerprint.split('/').next().unwrap_or_default();
        let message = match (&verdict.violation, verdict.pending.first(), &verdict.panic) {
            _ if kind == STUCK => verdict.pending.first().map(ToString::to_string).unwrap_or_default(),
            (Some(finding), ..) => finding.message.clone(),
            (None, Some(pending), _) => pending.to_string(),
            (None, None, panic) => panic.clone().unwrap_or_default(),
        };
        let entry = Entry {
            name: String::new(),
            catches: kind.to_owned(),
            defect: None,
            story: format!("{}. It ends with {message}.", summary::of_shrunk(&self.shrunk.plan).join("; ")),
            reaches: Entry::reached(verdict),
            engine: verdict.engine,
            plan: self.shrunk.plan.clone(),
        };
        entry.write(path).map_err(|error| CliError::Create(path.to_owned(), error))
    }

    /// Says in a few lines what is left, and how to keep it as a test.
    pub fn tell(&self, out: &mut impl Write, path: &Path) -> io::Result<()> {
        let (Shrunk { plan, runs, is_cut_short, verdict }, original) = (&self.shrunk, self.original);
        let cut_short = if *is_cut_short { ", where the budget ended" } else { "" };
        writeln!(
            out,
            "shrunk in {runs} runs{cut_short} to {} of {} faults, {} of {} operations, {} of {} clients, {} of {} hosts:",
            plan.faults.len(),
            original.faults.len(),
            plan.operations.len(),
            original.operations.len(),
            plan.clients.len(),
            original.clients.len(),
            plan.topology.hosts().count(),
            original.topology.hosts().count(),
        )?;
        for line in summary::of_shrunk(plan) {
            writeln!(out, "  {line}")?;
        }
        write!(out, "{}", summary::of_failure(verdict))?;
        let name: String = self
            .fingerprint
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .collect();
        let json = serde_json::to_string(plan).expect("a plan is plain data");
        writeln!(out, "as a test:")?;
        writeln!(out, "    #[test]\n    fn {name}() {{")?;
        writeln!(out, "        let plan = squall::sim::plan::Plan::load(r#\"{json}\"#).unwrap();")?;
        let judge = match verdict.engine {
            EngineName::TurmoilNet => "judge(&plan)".to_owned(),
            other => format!("judge_on(squall::sim::engine::EngineName::{other:?}, &plan)"),
        };
        writeln!(out, "        let verdict = squall::sim::runner::{judge};")?;
        writeln!(out, "        assert!(verdict.passed(), \"{{verdict:?}}\");\n    }}")?;
        writeln!(out, "kept as {}; in seeds/ `cargo test` runs it", path.display())
    }
}
