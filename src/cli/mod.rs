//! The command line: one file per subcommand, each of which parses, calls the library and prints.
//!
//! Exit status: 0 all well, 1 an invariant was violated, something was stuck or a recording shows a finding, 2 the
//! arguments, a file or the set-up are wrong, 101 it panicked, 128 and a signal's number: the signal cut it short.

mod audit;
mod defects;
mod duration;
mod follow;
mod plan;
mod replay;
mod run;
mod serve;
mod shrink;
mod signals;
mod soak;
mod summary;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use crate::env::TlsError;
use crate::follow::Refused;
use crate::serve::ServeError;
use crate::sim::corpus::EntryError;
use crate::sim::defects::{PatchError, WorkshopError};
use crate::sim::engine::EngineName;
use crate::sim::plan::{Plan, PlanError, Scenario};
use crate::sim::soak::folder::FolderError;
use crate::sim::soak::{Shard, processes};

/// Synapse's replication layer, and the deterministic storm that judges it.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one plan and judge it.
    Run(run::RunArguments),
    /// Run many seeds and count what they find.
    Soak(soak::SoakArguments),
    /// One of a soak's processes.
    #[command(name = processes::WORKER, hide = true)]
    SoakWorker(soak::WorkerArguments),
    /// Run entries of the corpus: findings that must not come back.
    Replay(replay::ReplayArguments),
    /// Find the least plan that fails as a given one does.
    Shrink(shrink::ShrinkArguments),
    /// Plant known defects and measure how soon the storm finds each.
    Defects(defects::DefectsArguments),
    /// Judge recordings of real replication traffic.
    Audit(audit::AuditArguments),
    /// Follow a live deployment on its Redis broker, and judge what is said there.
    Follow(Box<follow::FollowArguments>),
    /// Run an instance: over real sockets, on a database file.
    Serve(serve::ServeArguments),
    /// Print a plan, to be edited and run by `run --plan`.
    Plan(plan::PlanArguments),
}

/// What runs plans.
#[derive(Debug, Args)]
struct EngineArguments {
    /// Which engine simulates: turmoil-net, or turmoil, which cannot inject every fault and skips those.
    #[arg(long, default_value_t)]
    engine: EngineName,
}

/// What a scenario's plans are generated for.
#[derive(Debug, Args)]
struct ScenarioArguments {
    /// What kind of deployment and weather: storm, swarm or quiet.
    #[arg(long, default_value = "storm")]
    scenario: Scenario,
}

/// The plan that a command is about.
#[derive(Debug, Args)]
struct PlanOfArguments {
    /// The seed that decides everything.
    #[arg(long, default_value_t = 0, conflicts_with = "plan")]
    seed: u64,
    /// Take the plan in this file instead of generating one.
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    plan: Option<PathBuf>,
    #[command(flatten)]
    scenario: ScenarioArguments,
}

impl PlanOfArguments {
    fn load(&self) -> Result<Plan, CliError> {
        match &self.plan {
            Some(path) => load_plan(path),
            None => Ok(Plan::generate(self.scenario.scenario, self.seed)),
        }
    }
}

/// Why a command could not do its work.
#[derive(Debug, Error)]
enum CliError {
    /// A file that cannot be read.
    #[error("cannot read {0}: {1}. Name a file that `squall plan` printed")]
    Read(PathBuf, std::io::Error),
    /// A file that is no plan.
    #[error("{0}: {1}")]
    Plan(PathBuf, PlanError),
    /// A file that is no entry of the corpus.
    #[error("{0}: {1}")]
    Entry(PathBuf, EntryError),
    /// A plan to be shrunk that does not fail.
    #[error("the plan does not fail{}: there is nothing to shrink; see what `squall run` says of it", with(.0))]
    DoesNotFail(Option<String>),
    /// A defect that cannot be read.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// Defects cannot be planted.
    #[error(transparent)]
    Workshop(#[from] WorkshopError),
    /// A soak's folder that cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A shard without seeds.
    #[error("shard {0} has none of the seeds: give a larger range, or fewer shards")]
    EmptyShard(Shard),
    /// The program cannot be started once more, to run seeds.
    #[error("cannot start a process to run seeds in: {0}")]
    Start(std::io::Error),
    /// A file that cannot be made.
    #[error("cannot create {0}: {1}")]
    Create(PathBuf, std::io::Error),
    /// An instance that is not served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A broker that cannot be followed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The broker cannot be spoken to over TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Files for TLS, and no TLS.
    #[error("{0} is for TLS, and the broker's address is redis://: write rediss://")]
    NoTls(PathBuf),
    /// The address for metrics cannot be had.
    #[error("cannot serve metrics at {0}: {1}. Name an address of this machine and a free port")]
    Metrics(SocketAddr, std::io::Error),
    /// No level of what is logged.
    #[error(
        "{0:?} is no level: take error, warn, info, debug or trace, or one of a part, as in squall::transport=debug,info"
    )]
    LogLevel(String),
    /// What every process needs is not to be had.
    #[error("cannot begin: {0}")]
    Begin(std::io::Error),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Soak(arguments) => soak::soak(&arguments),
        Command::SoakWorker(arguments) => soak::work(&arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Shrink(arguments) => shrink::shrink(&arguments),
        Command::Defects(arguments) => defects::defects(&arguments),
        Command::Audit(arguments) => audit::audit(&arguments),
        Command::Follow(arguments) => follow::follow(&arguments),
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Plan(arguments) => plan::print(&arguments),
    };
    match result {
        Ok(status) => status,
        // Whoever reads our output has had enough of it.
        Err(CliError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

impl From<processes::Error> for CliError {
    fn from(error: processes::Error) -> Self {
        match error {
            processes::Error::Start(error) => CliError::Start(error),
            processes::Error::Take(error) => CliError::Write(error),
        }
    }
}

fn with(failure: &Option<String>) -> String {
    failure.as_ref().map_or(String::new(), |failure| format!(" with {failure}"))
}

/// Reads a plan from a file.
fn load_plan(path: &Path) -> Result<Plan, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::Read(path.to_owned(), error))?;
    Plan::load(&text).map_err(|error| CliError::Plan(path.to_owned(), error))
}

/// The exit status that says whether all went well.
fn status(all_well: bool) -> ExitCode {
    if all_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
