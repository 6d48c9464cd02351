//! `squall soak`: run many seeds.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{CliError, ScenarioArguments, status, summary};
use crate::judge::invariants;
use crate::sim::soak::{self, SeedRange, Tally};
use crate::sim::verdict::Verdict;

#[derive(Debug, Args)]
pub(super) struct SoakArguments {
    /// The seeds to run: from A up to but not including B.
    #[arg(long, value_name = "A..B")]
    seeds: SeedRange,
    /// How many seeds run at the same time.
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZeroUsize,
    /// Stop at the first seed that violates this invariant; succeed if there is one.
    #[arg(long, value_name = "INVARIANT", value_parser = PossibleValuesParser::new(invariants::NAMES))]
    until: Option<String>,
    #[command(flatten)]
    scenario: ScenarioArguments,
    /// Print each verdict as one JSON object, in the order of the seeds, and nothing else.
    #[arg(long)]
    json: bool,
}

pub(super) fn soak(arguments: &SoakArguments) -> Result<ExitCode, CliError> {
    let seeds = arguments.seeds;
    let bar = progress_bar(seeds.len(), arguments.json);
    let mut report = Report { json: arguments.json, bar: bar.clone(), tally: Tally::default(), written: Ok(()) };
    let mut found = None;
    soak::run(arguments.scenario.scenario, seeds, arguments.jobs, |verdict| {
        report.take(verdict);
        if arguments.until.as_deref().is_some_and(|invariant| verdict.violates(invariant)) {
            found = Some(verdict.seed);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    report.written?;
    if !arguments.json {
        print(&report.tally, bar.elapsed().as_secs_f64())?;
    }
    match &arguments.until {
        Some(_) => Ok(status(found.is_some())),
        None => Ok(status(report.tally.failed.is_empty())),
    }
}

fn progress_bar(seeds: u64, json: bool) -> ProgressBar {
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    let template = "{bar:32} {pos}/{len} seeds, {per_sec}, {eta} left, {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
    bar.set_message("no findings");
    bar
}

/// Takes each verdict as it comes.
struct Report {
    json: bool,
    bar: ProgressBar,
    tally: Tally,
    written: std::io::Result<()>,
}

impl Report {
    fn take(&mut self, verdict: &Verdict) {
        self.bar.inc(1);
        self.tally.add(verdict);
        if self.json {
            let line = serde_json::to_string(verdict).expect("a verdict is plain data");
            let written = writeln!(std::io::stdout(), "{line}");
            self.written = std::mem::replace(&mut self.written, Ok(())).and(written);
        }
        if !verdict.passed() {
            let failed = self.tally.failed.len();
            let distinct = self.tally.fingerprints.len();
            self.bar.set_message(format!("{failed} failed, {distinct} distinct"));
            if !self.json {
                let what = verdict.fingerprint().unwrap_or_default();
                self.bar.println(format!(
                    "seed {}: {} {what}\n  {}",
                    verdict.seed,
                    verdict.verdict,
                    verdict.reproduction()
                ));
            }
        }
    }
}

fn print(tally: &Tally, seconds: f64) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let rate = tally.seeds as f64 / seconds;
    writeln!(stdout, "{} seeds in {seconds:.1} s: {rate:.1} a second", tally.seeds)?;
    writeln!(stdout, "rows: {} committed, {} applied", tally.rows_committed, tally.rows_applied)?;
    writeln!(stdout, "faults that took effect: {}", summary::tally(&tally.faults_by_family))?;
    writeln!(stdout, "marks: {}", summary::tally(&tally.marks))?;
    writeln!(stdout, "checks: {}", summary::tally(&tally.exercised))?;
    writeln!(stdout, "{} violated, {} stuck, {} panicked", tally.violated, tally.stuck, tally.panicked)?;
    let distinct: &BTreeMap<_, _> = &tally.fingerprints;
    writeln!(stdout, "{} distinct fingerprints", distinct.len())?;
    for (fingerprint, (count, first)) in distinct {
        writeln!(stdout, "  {fingerprint}: {count} seeds, first {}", first.seed)?;
        writeln!(stdout, "  {}", first.reproduction)?;
    }
    Ok(())
}
