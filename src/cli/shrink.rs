//! `squall shrink`: finds the smallest plan that fails in the same way as a given one. `run` and `soak` shrink the
//! failures that they find in the same way.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::table::{Align, Table, wrap};
use super::{CliError, DetailArguments, EngineArguments, PlanOfArguments, summary};
use crate::sim::corpus::Entry;
use crate::sim::defects::Size;
use crate::sim::failures::current_fingerprint;
use crate::sim::plan::Plan;
use crate::sim::runner;
use crate::sim::shrink::{self, RUNS_MAX, Shrunk};
use crate::sim::verdict::STUCK;
use squall_netsim::EngineName;

/// The default directory for the entries of findings.
pub(super) const FOUND: &str = "found";

#[derive(Debug, Args)]
pub(super) struct ShrinkArguments {
    #[command(flatten)]
    plan: PlanOfArguments,
    #[command(flatten)]
    engine: EngineArguments,
    /// Failure to preserve: a fingerprint, an invariant or a conclusion. By default, the plan's first failure.
    #[arg(long, value_name = "FAILURE")]
    failure: Option<String>,
    /// Most runs that shrinking takes.
    #[arg(long, value_name = "N", default_value_t = RUNS_MAX)]
    runs: usize,
    /// File to write the corpus entry to, instead of a file in the directory of --keep.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Directory to write the corpus entry to, in a file named after the failure.
    #[arg(long, value_name = "DIR", default_value = FOUND, conflicts_with = "out")]
    keep: PathBuf,
    #[command(flatten)]
    detail: DetailArguments,
    /// Print the result as one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
}

/// The result of shrinking, as JSON.
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
    let failure = arguments.failure.as_deref().map(current_fingerprint);
    let is_meant = |fingerprint: &&String| match &failure {
        Some(failure) => *fingerprint == failure || fingerprint.split('/').next() == Some(failure),
        None => true,
    };
    let Some(fingerprint) = fingerprints.iter().find(is_meant) else {
        return Err(CliError::DoesNotFail(failure));
    };
    let found = Found::shrink(engine, &plan, fingerprint, arguments.runs);
    let found = found.expect("the same plan fails in the same way again, because all draws come from its seed");
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
        found.print(&mut stdout, &path, arguments.detail.verbose)?;
        writeln!(stdout, "cargo run --release -- replay {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A failure, with the smallest plan that shows it.
pub(super) struct Found<'a> {
    original: &'a Plan,
    fingerprint: &'a str,
    shrunk: Shrunk,
}

impl<'a> Found<'a> {
    /// Shrinks a plan, which may take minutes. Returns none if the plan does not fail on `engine` with `fingerprint`.
    pub(super) fn shrink(
        engine: EngineName,
        original: &'a Plan,
        fingerprint: &'a str,
        runs_max: usize,
    ) -> Option<Self> {
        eprintln!("shrinking the plan, in at most {runs_max} runs");
        shrink::shrink(engine, original, fingerprint, runs_max).map(|shrunk| Found { original, fingerprint, shrunk })
    }

    /// Writes an entry of the corpus to a file in `directory`, which is created if need be. Returns the file's path.
    pub(super) fn keep_in(&self, directory: &Path) -> Result<PathBuf, CliError> {
        std::fs::create_dir_all(directory).map_err(|error| CliError::Create(directory.to_owned(), error))?;
        let name = format!("{}-{}-{}.json", self.fingerprint, self.original.scenario, self.original.seed);
        // A panic's message may contain any character.
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

    /// Prints how much of the plan is left, its contents, the failure, and the entry's file `path` with a test that
    /// replays it. If `is_verbose`, prints the tables of the shrunk plan's run too.
    pub(super) fn print(&self, out: &mut impl Write, path: &Path, is_verbose: bool) -> io::Result<()> {
        let Shrunk { plan, runs, is_cut_short, verdict } = &self.shrunk;
        let cut_short = if *is_cut_short { ", where the budget ended" } else { "" };
        writeln!(out, "shrunk in {runs} runs{cut_short}:")?;
        write!(out, "{}", sizes(self.original, plan).render())?;
        writeln!(out, "\nthe plan that is left:")?;
        for line in summary::of_shrunk(plan) {
            write!(out, "{}", wrap(&format!("  {line}"), "    "))?;
        }
        if is_verbose {
            write!(out, "{}", summary::of_run(verdict, true))?;
        } else {
            write!(out, "{}", summary::of_failure(verdict))?;
        }
        // Paths are not wrapped: they are there to be copied.
        let path = path.display();
        writeln!(out, "\nkept as {path}")?;
        writeln!(out, "`cargo test` replays it once it is in seeds/; or as a test of its own:")?;
        writeln!(out, "    #[test]\n    fn {}() {{", test_name(self.fingerprint))?;
        writeln!(out, "        let path = std::path::Path::new({:?});", path.to_string())?;
        writeln!(out, "        let entry = squall::sim::corpus::Entry::read(path).unwrap();")?;
        writeln!(out, "        let verdict = entry.replay();")?;
        writeln!(out, "        assert!(verdict.passed(), \"{{verdict:?}}\");\n    }}")
    }
}

/// Returns a table of the sizes of two plans.
fn sizes(original: &Plan, shrunk: &Plan) -> Table {
    let mut table = Table::new([("", Align::Left), ("before", Align::Right), ("after", Align::Right)]);
    let before = Size::from(original);
    let after = Size::from(shrunk);
    for (name, before, after) in [
        ("faults", before.faults, after.faults),
        ("operations", before.operations, after.operations),
        ("clients", before.clients, after.clients),
        ("hosts", before.hosts, after.hosts),
    ] {
        table.row([name.to_owned(), before.to_string(), after.to_string()]);
    }
    table
}

/// Returns a fingerprint as the name of a test, of at most 60 characters.
fn test_name(fingerprint: &str) -> String {
    let letters = fingerprint.chars().take(60);
    letters.map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}
