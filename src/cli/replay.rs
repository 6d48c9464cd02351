//! `squall replay`: runs entries of the corpus, to check that no finding has returned.
//!
//! An entry is stale if it passes but its run no longer reaches the situations that once made it fail. A stale entry
//! counts as failed.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::table::{Align, Table, wrap};
use super::{CliError, DetailArguments, status, summary};
use crate::sim::corpus::Entry;
use crate::sim::soak::Tally;
use crate::sim::verdict::{self, Verdict, cargo};
use squall_netsim::{EngineError, EngineName};

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// Entries of the corpus, such as seeds/*.json.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Engine that simulates the network, instead of the one that each entry names.
    #[arg(long)]
    engine: Option<EngineName>,
    #[command(flatten)]
    detail: DetailArguments,
    /// Print each verdict as one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
}

/// The result of one entry, as JSON.
#[derive(Serialize)]
struct Replayed<'a> {
    name: &'a str,
    catches: &'a str,
    /// Situations that the entry lists and its run did not reach.
    missing: &'a [String],
    #[serde(flatten)]
    report: verdict::Report<'a>,
}

pub(super) fn replay(arguments: &ReplayArguments) -> Result<ExitCode, CliError> {
    // All entries are read before the first one runs, so that a mistyped name is reported at once.
    let read = |path: &PathBuf| Entry::read(path).map_err(|error| CliError::Entry(path.clone(), error));
    let entries = arguments.files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut report = Report::new(entries.len() as u64, arguments.json);
    for (path, entry) in arguments.files.iter().zip(&entries) {
        report.bar.set_message(entry.name.clone());
        let engine = arguments.engine.unwrap_or(entry.engine);
        if !engine.is_built() {
            writeln!(io::stderr(), "{} is skipped: {}", entry.name, EngineError::NotBuilt(engine))?;
            continue;
        }
        let verdict = entry.replay_on(engine);
        let argument = arguments.engine.map(|engine| format!(" --engine {engine}")).unwrap_or_default();
        let reproduction = format!("{} -- replay{argument} {}", cargo(engine), path.display());
        // Another engine may reach other situations.
        let missing = if engine == entry.engine { entry.missing(&verdict) } else { Vec::new() };
        if arguments.json {
            let report = verdict.report(&reproduction);
            let replayed = Replayed { name: &entry.name, catches: &entry.catches, missing: &missing, report };
            let line = serde_json::to_string(&replayed).expect("a verdict is plain data");
            writeln!(io::stdout(), "{line}")?;
        }
        report.add(entry, &verdict, &missing, reproduction);
    }
    report.bar.finish_and_clear();
    if !arguments.json {
        report.print(&mut io::stdout(), arguments.detail.verbose)?;
    }
    // A replay of nothing has shown nothing.
    Ok(status(report.failed.is_empty() && report.tally.seeds > 0))
}

/// The results of the entries that have run.
struct Report {
    bar: ProgressBar,
    entries: Table,
    tally: Tally,
    /// The entries that failed, in words.
    failed: Vec<String>,
    /// The commands that repeat them.
    reproductions: Vec<String>,
}

impl Report {
    fn new(entries: u64, is_json: bool) -> Self {
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}").expect("the template is valid");
        let bar = if is_json { ProgressBar::hidden() } else { ProgressBar::new(entries) };
        Report {
            bar: bar.with_style(style),
            entries: Table::new([("entry", Align::Left), ("catches", Align::Left), ("verdict", Align::Left)]),
            tally: Tally::default(),
            failed: Vec::new(),
            reproductions: Vec::new(),
        }
    }

    fn add(&mut self, entry: &Entry, verdict: &Verdict, missing: &[String], reproduction: String) {
        self.bar.inc(1);
        self.tally.add(verdict);
        let is_stale = verdict.passed() && !missing.is_empty();
        let ending = if is_stale { "stale" } else { verdict.verdict.name() };
        self.entries.row([entry.name.clone(), entry.catches.clone(), ending.to_owned()]);
        if verdict.passed() && !is_stale {
            return;
        }
        let mut text = format!("{}: {ending}\n", entry.name);
        if is_stale {
            let missing = missing.join(", ");
            text.push_str(&wrap(&format!("its run did not reach {missing}: find the finding again"), "  "));
        } else {
            text.push_str(&summary::of_failure(verdict));
            text.push_str(&wrap(&entry.story, "  "));
        }
        self.failed.push(text + &reproduction);
        self.reproductions.push(reproduction);
    }

    fn print(&self, out: &mut impl Write, is_verbose: bool) -> io::Result<()> {
        write!(out, "{}", self.entries.render())?;
        for failed in &self.failed {
            writeln!(out, "\n{failed}")?;
        }
        write!(out, "\n{}", summary::of_tally(&self.tally, is_verbose))?;
        writeln!(out, "\nverdict: {} replayed, {} failed", self.tally.seeds, self.failed.len())?;
        match self.reproductions.first() {
            Some(reproduction) => writeln!(out, "{reproduction}"),
            None => Ok(()),
        }
    }
}
