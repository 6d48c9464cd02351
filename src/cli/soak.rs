//! `squall soak`: run many seeds, each process of which may hang or crash, and keep what was found.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::shrink::FOUND;
use super::{CliError, EngineArguments, ScenarioArguments, duration, status, summary};
use crate::judge::invariants;
use crate::sim::shrink::RUNS_MAX;
use crate::sim::soak::folder::{Folder, Manifest, Recorded};
use crate::sim::soak::processes::{self, Arrival, Ending, Limits, Options};
use crate::sim::soak::{InOrder, Outcome, SeedRange, Seeds, Shard, Tally, worker};
use crate::sim::verdict::Conclusion;

/// How many kinds of failure a soak shrinks at the most: when all is red, a few are enough to begin with.
const SHRUNK_MAX: usize = 5;
/// How long shrinking one of them may take, in real time.
const SHRINKING_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Args)]
pub(super) struct SoakArguments {
    /// The seeds to run: from A up to but not including B.
    #[arg(long, value_name = "A..B", required_unless_present = "time")]
    seeds: Option<SeedRange>,
    /// Run one seed after another for this long, such as 8h, 1h30m or 90s.
    #[arg(id = "time", long = "for", value_name = "DURATION", value_parser = duration::parse, conflicts_with = "seeds")]
    time: Option<Duration>,
    /// The seed to begin with.
    #[arg(long, value_name = "SEED", default_value_t = 0, conflicts_with = "seeds")]
    from: u64,
    /// Run only the seeds that leave I when divided by N: one of N machines' part.
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    shard: Shard,
    /// How many seeds run at the same time.
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZeroUsize,
    /// Keep every verdict in this directory. The same command again goes on from there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Stop at the first seed that fails in this way; succeed if there is one.
    #[arg(long, value_name = "FAILURE", value_parser = failures(), conflicts_with = "out")]
    until: Option<String>,
    /// How long a seed may take in real time.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration::parse)]
    patience: Duration,
    /// How much memory the process that runs a seed may hold. Watched on Linux alone.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    memory: u64,
    /// How many runs it may take to shrink the first plan of each kind of failure; 0 leaves them as they are. Not with
    /// --json or --until.
    #[arg(long, value_name = "N", default_value_t = RUNS_MAX)]
    shrink_runs: usize,
    #[command(flatten)]
    scenario: ScenarioArguments,
    #[command(flatten)]
    engine: EngineArguments,
    /// Print each verdict as one JSON object, in the order of the seeds, and nothing else.
    #[arg(long)]
    json: bool,
}

/// What `--until` can wait for: the violation of an invariant, or a run that ends in another way than it should.
fn failures() -> PossibleValuesParser {
    let unhappy = |conclusion: &Conclusion| !matches!(conclusion, Conclusion::Passed | Conclusion::Violated);
    let conclusions = Conclusion::ALL.into_iter().filter(unhappy).map(Conclusion::name);
    PossibleValuesParser::new(invariants::NAMES.iter().copied().chain(conclusions))
}

/// What a soak's own process is started with.
#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// `squall soak-worker`, which `soak` starts and nobody else.
pub(super) fn work(arguments: &WorkerArguments) -> ! {
    worker::serve(arguments.engine.engine, arguments.scenario.scenario)
}

pub(super) fn soak(arguments: &SoakArguments) -> Result<ExitCode, CliError> {
    let (engine, scenario) = (arguments.engine.engine, arguments.scenario.scenario);
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
    let limits = Limits { patience: arguments.patience, memory_mib: arguments.memory };
    let options = Options { engine, scenario, jobs: arguments.jobs, time: arguments.time, limits };
    let seeds = seeds.iter().filter(move |seed| !recorded.contains(seed));
    // A verdict is kept as soon as it is there, and told in the order of the seeds.
    let mut in_order = InOrder::from(0);
    let ending = processes::run(&options, seeds, |arrival| {
        if let Some(folder) = &mut folder {
            folder.record(&arrival.line)?;
        }
        report.bar.inc(1);
        in_order.insert(arrival.ordinal, arrival);
        for arrival in in_order.by_ref() {
            if report.take(arrival)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Ending::Stopped(_) = ending {
        in_order.into_rest().try_for_each(|arrival| report.take(arrival).map(drop))?;
    }
    if let Some(folder) = folder {
        folder.finish(ending == Ending::Complete, &report.tally)?;
    }
    report.end(ending)?;
    if ending == Ending::Complete
        && !arguments.json
        && let Some(signal) = shrink(arguments, &report.tally)?
    {
        return Ok(ExitCode::from(128 + signal as u8));
    }
    Ok(match (ending, &arguments.until) {
        (Ending::Stopped(signal), _) => ExitCode::from(128 + signal as u8),
        (_, Some(_)) => status(ending == Ending::Enough),
        (_, None) => status(report.tally.failed.is_empty()),
    })
}

/// Shrinks the first plan of each kind of failure, each in a process of its own: it may hang or crash, as the seeds may.
/// Those that took their process with them are left alone.
fn shrink(arguments: &SoakArguments, tally: &Tally) -> Result<Option<i32>, CliError> {
    let fatal = [Conclusion::Hung, Conclusion::Crashed, Conclusion::OutOfMemory];
    let directory = arguments.out.as_ref().map_or(PathBuf::from(FOUND), |out| out.join(FOUND));
    let can_be_shrunk = |fingerprint: &&String| fatal.iter().all(|conclusion| conclusion.name() != *fingerprint);
    let kinds = tally.fingerprints.keys().filter(can_be_shrunk);
    let kinds: Vec<&String> = kinds.take(if arguments.shrink_runs == 0 { 0 } else { SHRUNK_MAX }).collect();
    for fingerprint in kinds {
        let failures = &tally.fingerprints[fingerprint];
        let (scenario, seed) = (arguments.scenario.scenario.to_string(), failures.first.to_string());
        let engine = arguments.engine.engine.to_string();
        let (runs, directory) = (arguments.shrink_runs.to_string(), directory.to_string_lossy());
        println!("{fingerprint}, seed {seed}:");
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
        // The last line repeats it.
        println!("{}", failures.reproduction);
    }
    Ok(None)
}

/// Tells what comes, as it comes and at the end.
struct Report<'a> {
    arguments: &'a SoakArguments,
    bar: ProgressBar,
    /// Of all seeds, also those recorded before.
    tally: Tally,
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
            report.say(&format!("going on: {recorded} seeds have their verdict already"));
        }
        report
    }

    fn take(&mut self, Arrival { line, outcome, .. }: Arrival) -> io::Result<ControlFlow<()>> {
        if self.arguments.json {
            writeln!(io::stdout(), "{line}")?;
        }
        if !outcome.passed() {
            self.say(&finding(&outcome));
        }
        let found = self.arguments.until.as_deref().is_some_and(|failure| outcome.is(failure));
        self.tally.add(outcome);
        self.count_findings();
        Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn count_findings(&self) {
        let (failed, distinct) = (self.tally.failed.len(), self.tally.fingerprints.len());
        self.bar.set_message(match failed {
            0 => "no findings".to_owned(),
            _ => format!("{failed} failed, {distinct} distinct"),
        });
    }

    /// Says something beside the progress bar; to a log, where there is no terminal.
    fn say(&self, text: &str) {
        match (self.arguments.json, self.bar.is_hidden()) {
            (true, _) => {}
            (false, true) => eprintln!("{text}"),
            (false, false) => self.bar.println(text),
        }
    }

    fn end(&self, ending: Ending) -> io::Result<()> {
        self.bar.finish_and_clear();
        if let Ending::Stopped(_) = ending {
            match &self.arguments.out {
                Some(path) => eprintln!(
                    "stopped; {} verdicts are kept in {}, and the same command again goes on from there",
                    self.tally.seeds,
                    path.display()
                ),
                None => eprintln!("stopped; with --out DIR, the same command again could go on from here"),
            }
        }
        if self.arguments.json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let tally = &self.tally;
        let (seeds, seconds) = (tally.seeds - self.recorded, self.bar.elapsed().as_secs_f64());
        writeln!(stdout, "{seeds} seeds in {seconds:.1} s: {:.1} a second", seeds as f64 / seconds)?;
        if self.recorded > 0 {
            writeln!(stdout, "with those of before: {}", tally.seeds)?;
        }
        writeln!(stdout, "rows: {} committed, {} applied", tally.rows_committed, tally.rows_applied)?;
        writeln!(stdout, "faults that took effect: {}", summary::tally(&tally.faults_by_family))?;
        writeln!(stdout, "marks: {}", summary::tally(&tally.marks))?;
        writeln!(stdout, "checks: {}", summary::tally(&tally.exercised))?;
        writeln!(stdout, "verdicts: {}", summary::tally(&tally.verdicts))?;
        writeln!(stdout, "{} distinct fingerprints", tally.fingerprints.len())?;
        for (fingerprint, failures) in &tally.fingerprints {
            writeln!(stdout, "  {fingerprint}: {} seeds, first {}", failures.seeds, failures.first)?;
            writeln!(stdout, "  {}", failures.reproduction)?;
        }
        Ok(())
    }
}

/// A seed that failed, in words: what it is, what its process said last, and how to repeat it.
fn finding(outcome: &Outcome) -> String {
    let mut text = format!("seed {}: {}", outcome.seed, outcome.verdict);
    match (&outcome.death, &outcome.fingerprint) {
        (Some(death), _) => text.push_str(&format!(" {}", death.replace('\n', "\n    "))),
        (None, Some(fingerprint)) => text.push_str(&format!(" {fingerprint}")),
        (None, None) => {}
    }
    text.push_str(&format!("\n  {}", outcome.reproduction));
    text
}
