//! `squall soak`: runs many seeds, in processes that may hang or crash, and counts their failures.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::shrink::FOUND;
use super::table::{Align, Table, wrap};
use super::{CliError, DetailArguments, EngineArguments, ScenarioArguments, all_cores, duration, status, summary};
use crate::sim::failures::{current_name, names, old_names};
use crate::sim::shrink::RUNS_MAX;
use crate::sim::soak::folder::{Folder, Manifest, Recorded};
use crate::sim::soak::processes::{self, Arrival, Ending, Limits, Options};
use crate::sim::soak::{InOrder, Outcome, SeedRange, Seeds, Shard, Tally, worker};
use crate::sim::verdict::Conclusion;

/// Most kinds of failure that a soak shrinks. When everything fails, a few are enough to begin with.
const SHRUNK_MAX: usize = 5;
/// Most real time for shrinking one of them.
const SHRINKING_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Args)]
pub(super) struct SoakArguments {
    /// Seeds to run: from A up to but not including B.
    #[arg(long, value_name = "A..B", required_unless_present = "time")]
    seeds: Option<SeedRange>,
    /// Time for which seeds are run, one after another, such as 8h, 1h30m or 90s.
    #[arg(id = "time", long = "for", value_name = "DURATION", value_parser = duration::parse, conflicts_with = "seeds")]
    time: Option<Duration>,
    /// First seed of a soak with --for.
    #[arg(long, value_name = "SEED", default_value_t = 0, conflicts_with = "seeds")]
    from: u64,
    /// Shard of the seeds to run: those whose remainder is I when divided by N. Each of N machines runs one shard.
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    shard: Shard,
    /// Number of seeds that run at the same time [default: all cores].
    #[arg(long, value_name = "N", default_value_t = all_cores(), hide_default_value = true)]
    jobs: NonZeroUsize,
    /// Directory to keep every verdict in. The same command resumes the soak from there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Stop at the first seed that fails in this way. The exit status is 0 if there is one.
    #[arg(long, value_name = "FAILURE", value_parser = failures(), conflicts_with = "out")]
    stop_on: Option<String>,
    /// Most real time for one seed. A seed that takes longer is a finding.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration::parse)]
    timeout: Duration,
    /// Most memory of a process that runs seeds. A seed that takes more is a finding. Linux only.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    memory: u64,
    /// Most runs for shrinking the first plan of each kind of failure; 0 shrinks none. Without effect with --json or
    /// --stop-on.
    #[arg(long, value_name = "N", default_value_t = RUNS_MAX)]
    shrink_runs: usize,
    #[command(flatten)]
    scenario: ScenarioArguments,
    #[command(flatten)]
    engine: EngineArguments,
    #[command(flatten)]
    detail: DetailArguments,
    /// Print each verdict as one JSON object, in the order of the seeds, and nothing else.
    #[arg(long)]
    json: bool,
}

/// Returns a parser of the failures that `--stop-on` accepts. It accepts old names too.
fn failures() -> PossibleValuesParser {
    PossibleValuesParser::new(names().map(|name| PossibleValue::new(name).aliases(old_names(name))))
}

/// The arguments of a process of a soak.
#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Runs `squall soak-worker`, which only `squall soak` starts.
pub(super) fn work(arguments: &WorkerArguments) -> ! {
    worker::serve(arguments.engine.engine, arguments.scenario.scenario)
}

pub(super) fn soak(arguments: &SoakArguments) -> Result<ExitCode, CliError> {
    let engine = arguments.engine.engine;
    let scenario = arguments.scenario.scenario;
    let seeds = match arguments.seeds {
        Some(range) => Seeds::Range(range, arguments.shard),
        None => Seeds::From(arguments.from, arguments.shard),
    };
    if seeds.iter().next().is_none() {
        return Err(CliError::EmptyShard(arguments.shard));
    }
    let (mut folder, Recorded { seeds: recorded, tally }) = match &arguments.out {
        Some(path) => {
            let manifest = Manifest::new(engine, scenario, seeds).map_err(CliError::Start)?;
            let (folder, recorded) = Folder::open(path, manifest)?;
            (Some(folder), recorded)
        }
        None => (None, Recorded::default()),
    };
    let mut report = Report::new(arguments, seeds, tally);
    let limits = Limits { timeout: arguments.timeout, memory_mib: arguments.memory };
    let options = Options { engine, scenario, jobs: arguments.jobs, time: arguments.time, limits };
    let seeds = seeds.iter().filter(move |seed| !recorded.contains(seed));
    // A verdict is kept as soon as it arrives, and reported in the order of the seeds.
    let mut in_order = InOrder::from(0);
    let ending = processes::run(&options, seeds, |arrival| {
        if let Some(folder) = &mut folder {
            folder.record(&arrival.line)?;
        }
        report.bar.inc(1);
        in_order.insert(arrival.ordinal, arrival);
        for arrival in in_order.by_ref() {
            if report.add(arrival)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Ending::Stopped(_) = ending {
        for arrival in in_order.into_rest() {
            let _ = report.add(arrival)?;
        }
    }
    if let Some(folder) = folder {
        folder.finish(ending == Ending::Complete, &report.tally)?;
    }
    report.print_tables(ending)?;
    if ending == Ending::Complete
        && !arguments.json
        && let Some(signal) = shrink(arguments, &report.tally)?
    {
        return Ok(ExitCode::from(128 + signal as u8));
    }
    report.print_verdict()?;
    Ok(match (ending, &arguments.stop_on) {
        (Ending::Stopped(signal), _) => ExitCode::from(128 + signal as u8),
        (_, Some(_)) => status(ending == Ending::Enough),
        (_, None) => status(report.tally.failed.is_empty()),
    })
}

/// Shrinks the first plan of each kind of failure, each in a process of its own, because it may hang or crash as the
/// seeds may. Failures that ended their process are not shrunk. Returns the number of the signal that stopped this
/// process meanwhile, if one did.
fn shrink(arguments: &SoakArguments, tally: &Tally) -> Result<Option<i32>, CliError> {
    let fatal = [Conclusion::Hung, Conclusion::Crashed, Conclusion::OutOfMemory];
    let directory = arguments.out.as_ref().map_or(PathBuf::from(FOUND), |out| out.join(FOUND));
    let can_be_shrunk = |fingerprint: &&String| fatal.iter().all(|conclusion| conclusion.name() != *fingerprint);
    let kinds = tally.fingerprints.keys().filter(can_be_shrunk);
    let kinds_max = if arguments.shrink_runs == 0 { 0 } else { SHRUNK_MAX };
    for fingerprint in kinds.take(kinds_max) {
        let failures = &tally.fingerprints[fingerprint];
        let scenario = arguments.scenario.scenario.to_string();
        let engine = arguments.engine.engine.to_string();
        let seed = failures.first.to_string();
        let runs = arguments.shrink_runs.to_string();
        let directory = directory.to_string_lossy();
        let mut stdout = io::stdout();
        write!(stdout, "\n{}", wrap(&format!("{fingerprint}, seed {seed}:"), "  "))?;
        let words = [
            ["--scenario", &scenario],
            ["--engine", &engine],
            ["--seed", &seed],
            ["--failure", fingerprint],
            ["--runs", &runs],
            ["--keep", &directory],
        ];
        if let Some(signal) = processes::run_once("shrink", words.as_flattened(), SHRINKING_MAX)? {
            return Ok(Some(signal));
        }
    }
    Ok(None)
}

/// Reports verdicts as they arrive, and all of them at the end.
struct Report<'a> {
    arguments: &'a SoakArguments,
    bar: ProgressBar,
    /// The verdicts on all seeds, also on those recorded by an earlier command.
    tally: Tally,
    /// Number of seeds recorded by an earlier command.
    recorded: u64,
}

impl<'a> Report<'a> {
    fn new(arguments: &'a SoakArguments, seeds: Seeds, tally: Tally) -> Self {
        let target = if arguments.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let recorded = tally.seeds;
        let bar = ProgressBar::with_draw_target(seeds.count().map(|seeds| seeds.saturating_sub(recorded)), target);
        let template = match arguments.seeds {
            Some(_) => "{bar:32} {pos}/{len} seeds, {per_sec}, {eta} left, {msg}",
            None => "{spinner} {elapsed_precise} {pos} seeds, {per_sec}, {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        let report = Report { arguments, bar, tally, recorded };
        report.count_findings();
        if recorded > 0 {
            report.log(&format!("resuming: {recorded} seeds have a verdict already"));
        }
        report
    }

    fn add(&mut self, Arrival { line, outcome, .. }: Arrival) -> io::Result<ControlFlow<()>> {
        if self.arguments.json {
            writeln!(io::stdout(), "{line}")?;
        }
        if !outcome.passed() {
            self.log(&finding(&outcome));
        }
        let failure = self.arguments.stop_on.as_deref().map(current_name);
        let is_found = failure.is_some_and(|failure| outcome.is(failure));
        self.tally.add(outcome);
        self.count_findings();
        Ok(if is_found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn count_findings(&self) {
        let failed = self.tally.failed.len();
        let kinds = self.tally.fingerprints.len();
        self.bar.set_message(match failed {
            0 => "no findings".to_owned(),
            _ => format!("{failed} failed, {kinds} distinct"),
        });
    }

    /// Writes to standard error, above the progress bar if there is one.
    fn log(&self, text: &str) {
        if self.arguments.json {
            return;
        }
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Prints the tables of all verdicts, and the command for the first seed of each kind of failure.
    fn print_tables(&self, ending: Ending) -> io::Result<()> {
        self.bar.finish_and_clear();
        if let Ending::Stopped(_) = ending {
            match &self.arguments.out {
                Some(path) => eprintln!(
                    "stopped with {} verdicts in {}: run the same command again to resume",
                    self.tally.seeds,
                    path.display()
                ),
                None => eprintln!("stopped: with --out DIR, the same command could be resumed from here"),
            }
        }
        if self.arguments.json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let tally = &self.tally;
        write!(stdout, "{}", summary::of_tally(tally, self.arguments.detail.verbose))?;
        if !tally.fingerprints.is_empty() {
            write!(stdout, "\n{}", failures_table(tally).render())?;
            writeln!(stdout, "\nto repeat the first seed of each:")?;
            for failures in tally.fingerprints.values() {
                writeln!(stdout, "{}", failures.reproduction)?;
            }
        }
        Ok(())
    }

    /// Prints the verdict, and the command that repeats the first failure.
    fn print_verdict(&self) -> io::Result<()> {
        if self.arguments.json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let tally = &self.tally;
        let seeds = tally.seeds - self.recorded;
        let seconds = self.bar.elapsed().as_secs_f64();
        let committed = summary::of_count(tally.rows_committed, "row");
        writeln!(stdout, "\n{committed} committed, {} applied", tally.rows_applied)?;
        let per_second = seeds as f64 / seconds;
        writeln!(stdout, "{} in {seconds:.1} s: {per_second:.1} a second", summary::of_count(seeds, "seed"))?;
        if self.recorded > 0 {
            writeln!(stdout, "{} with those of earlier commands", summary::of_count(tally.seeds, "seed"))?;
        }
        let endings = tally.verdicts.iter().map(|(conclusion, seeds)| format!("{seeds} {conclusion}"));
        let endings = endings.collect::<Vec<_>>().join(", ");
        writeln!(stdout, "verdict: {}", if endings.is_empty() { "no seed was run" } else { &endings })?;
        match tally.fingerprints.values().min_by_key(|failures| failures.first) {
            Some(first) => writeln!(stdout, "{}", first.reproduction),
            None => Ok(()),
        }
    }
}

fn failures_table(tally: &Tally) -> Table {
    let mut table = Table::new([("failure", Align::Left), ("seeds", Align::Right), ("first seed", Align::Right)]);
    for (fingerprint, failures) in &tally.fingerprints {
        table.row([fingerprint.clone(), failures.seeds.to_string(), failures.first.to_string()]);
    }
    table
}

/// Returns a failed seed in words: its failure, the last output of its process, and the command that repeats it.
fn finding(outcome: &Outcome) -> String {
    let mut text = format!("seed {}: {}", outcome.seed, outcome.verdict);
    match (&outcome.death, &outcome.fingerprint) {
        (Some(death), _) => text.push_str(&format!(" {}", death.replace('\n', "\n    "))),
        (None, Some(fingerprint)) => text.push_str(&format!(" {fingerprint}")),
        (None, None) => {}
    }
    format!("{}  {}", wrap(&text, "    "), outcome.reproduction)
}
