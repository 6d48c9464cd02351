//! `squall run`: runs one plan and prints its verdict.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::shrink::{FOUND, Found};
use super::table::wrap;
use super::{CliError, DetailArguments, EngineArguments, PlanOfArguments, status, summary};
use crate::sim::memory::peak_mib;
use crate::sim::plan::Plan;
use crate::sim::runner::{self, Entropy, Progress, RunHooks};
use crate::sim::shrink::RUNS_MAX;
use crate::sim::verdict::{Verdict, cargo_run};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    plan: PlanOfArguments,
    #[command(flatten)]
    engine: EngineArguments,
    #[command(flatten)]
    detail: DetailArguments,
    /// Print the verdict as one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
    /// File to write every observation to, on a line each.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Most runs for shrinking a plan that fails; 0 does not shrink it. Without effect with --json.
    #[arg(long, value_name = "N", default_value_t = RUNS_MAX)]
    shrink_runs: usize,
    /// Draw random numbers from the operating system instead of the seed. For a test of the determinism test.
    #[arg(long, hide = true)]
    unseeded: bool,
}

impl RunArguments {
    /// Returns the command that repeats the run.
    fn reproduction(&self, verdict: &Verdict) -> String {
        match &self.plan.plan {
            Some(path) => format!("{} --plan {}", cargo_run(verdict.engine), path.display()),
            None => verdict.reproduction(),
        }
    }
}

pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode, CliError> {
    let plan = arguments.plan.load()?;
    let engine = arguments.engine.engine;
    let entropy = if arguments.unseeded { Entropy::System } else { Entropy::Seed };
    let mut hooks = RunHooks::default();
    if let Some(path) = &arguments.trace {
        let file = File::create(path).map_err(|error| CliError::Create(path.clone(), error))?;
        hooks.trace = Some(Box::new(BufWriter::new(file)));
    }
    let mut stdout = std::io::stdout();
    if arguments.json {
        let verdict = runner::run_on(engine, &plan, entropy, hooks);
        writeln!(stdout, "{}", verdict.report(&arguments.reproduction(&verdict)).to_json())?;
        return Ok(status(verdict.passed()));
    }
    write!(stdout, "{}", summary::of_plan(&plan))?;
    let live = LiveView::new(&plan);
    let bar = live.bar.clone();
    hooks.watcher = Some(Box::new(move |progress| live.show(progress)));
    let verdict = runner::run_on(engine, &plan, entropy, hooks);
    bar.finish_and_clear();
    write!(stdout, "{}", summary::of_run(&verdict, arguments.detail.verbose))?;
    if let Some(mib) = peak_mib() {
        writeln!(stdout, "{mib} MiB of memory at most")?;
    }
    if let Some(fingerprint) = verdict.fingerprint().filter(|_| entropy == Entropy::Seed && arguments.shrink_runs > 0)
        && let Some(found) = Found::shrink(engine, &plan, &fingerprint, arguments.shrink_runs)
    {
        let path = found.keep_in(Path::new(FOUND))?;
        writeln!(stdout)?;
        found.print(&mut stdout, &path, arguments.detail.verbose)?;
        writeln!(stdout)?;
    }
    // The last line is the command that repeats the run.
    writeln!(stdout, "verdict: {}\n{}", verdict.verdict, arguments.reproduction(&verdict))?;
    Ok(status(verdict.passed()))
}

/// Shows the progress of a run on standard error, if that is a terminal.
struct LiveView {
    bar: ProgressBar,
}

impl LiveView {
    fn new(plan: &Plan) -> Self {
        let bar = ProgressBar::with_draw_target(Some(plan.storm_ms), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:>6} {bar:32} {msg}").expect("the template is valid");
        bar.set_style(style);
        bar.set_prefix("storm");
        LiveView { bar }
    }

    fn show(&self, progress: Progress) {
        match progress {
            Progress::Moved { at, counts } => {
                self.bar.set_position(at.0.min(self.bar.length().unwrap_or(at.0)));
                let committed = counts.rows_committed;
                let applied = counts.rows_applied;
                self.bar.set_message(format!("{at}  {committed} rows committed, {applied} applied"));
            }
            Progress::Fault { at, fault } => {
                let line = format!("{:>10}  {fault}", at.to_string());
                self.bar.println(wrap(&line, "            ").trim_end());
            }
            Progress::Calm { at } => {
                self.bar.set_prefix("calm");
                self.bar.println(format!("{:>10}  the storm is over", at.to_string()));
            }
        }
    }
}
