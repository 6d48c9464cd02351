//! The command line. Each subcommand has one file, which parses arguments, calls the library and prints.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | no finding; `soak --stop-on` found its failure; `serve` stopped in order; the output's reader closed it |
//! | 1 | a finding: a run failed, a planted defect or the failure of `--stop-on` was not found, a violation counts |
//! | 2 | no result: the arguments, a file or the set-up are wrong, or nothing was heard, read or recorded to its end |
//! | 101 | Squall panicked |
//! | 128 + N | signal N stopped the command before its end. The first signal is the end of `follow` and of `serve` |

mod audit;
mod defects;
mod duration;
mod findings;
mod follow;
mod logging;
mod plan;
mod repair;
mod replay;
mod run;
mod serve;
mod shrink;
mod signals;
mod soak;
mod summary;
mod synapse_config;
mod table;
mod writers;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use self::follow::{BrokerArgumentError, ServerNameError};
use self::synapse_config::SynapseConfigError;
use crate::follow::Refused;
use crate::serve::ServeError;
use crate::sim::corpus::EntryError;
use crate::sim::defects::{BuildError, PatchError};
use crate::sim::plan::{Plan, PlanError, Scenario};
use crate::sim::soak::folder::FolderError;
use crate::sim::soak::{Shard, processes};
use squall_env::{Address, TlsError};
use squall_netsim::EngineName;

/// Synapse's replication layer, and a deterministic simulator that tests it.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one plan and check every invariant.
    Run(run::RunArguments),
    /// Run many seeds and count their failures.
    Soak(soak::SoakArguments),
    /// Run the seeds that standard input names: one process of a soak.
    #[command(name = processes::WORKER, hide = true)]
    SoakWorker(soak::WorkerArguments),
    /// Run entries of the corpus: findings that must not return.
    Replay(replay::ReplayArguments),
    /// Find the smallest plan that fails in the same way as a given one.
    Shrink(shrink::ShrinkArguments),
    /// Plant known defects, and measure how soon a search of seeds finds each.
    Defects(defects::DefectsArguments),
    /// Check recordings of real replication traffic.
    Audit(audit::AuditArguments),
    /// Follow a live deployment on its Redis broker, and check its traffic.
    Follow(Box<follow::FollowArguments>),
    /// Run one instance of a deployment, on real sockets and a real database.
    Serve(serve::ServeArguments),
    /// Lower recorded positions that are past the last id of their stream, with which no instance starts.
    Repair(repair::RepairArguments),
    /// Print the plan of a seed. Edit it, and run it with `run --plan`.
    Plan(plan::PlanArguments),
}

/// The engine that runs plans.
#[derive(Debug, Args)]
struct EngineArguments {
    /// Engine that simulates the network: event-driven, or turmoil, which skips the faults that it cannot inject and needs
    /// a build with `--features turmoil`.
    #[arg(long, default_value_t)]
    engine: EngineName,
}

/// The scenario that plans are drawn for.
#[derive(Debug, Args)]
struct ScenarioArguments {
    /// Deployment, operations and faults that plans are drawn for.
    #[arg(long, value_name = "NAME", default_value_t, value_parser = scenarios())]
    scenario: Scenario,
}

/// Returns a parser of scenarios, whose names the help text lists.
fn scenarios() -> impl TypedValueParser<Value = Scenario> {
    let parse = |name: String| name.parse::<Scenario>();
    PossibleValuesParser::new(Scenario::ALL.iter().map(|scenario| scenario.name())).try_map(parse)
}

/// The amount of detail in printed tables.
#[derive(Debug, Args)]
struct DetailArguments {
    /// Print every counter, also those that are zero.
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
}

/// The plan that a command runs.
#[derive(Debug, Args)]
struct PlanOfArguments {
    /// Seed that the plan and all of the run's random numbers are drawn from.
    #[arg(long, default_value_t = 0, conflicts_with = "plan")]
    seed: u64,
    /// File with the plan to run, instead of one that is drawn from a seed.
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

/// An error that ends a command with exit status 2.
#[derive(Debug, Error)]
enum CliError {
    /// The file of a plan cannot be read.
    #[error("cannot read {0}: {1}. Name a file that `squall plan` printed")]
    Read(PathBuf, std::io::Error),
    /// The file's content is not a plan.
    #[error("{0}: {1}")]
    Plan(PathBuf, PlanError),
    /// The file is not an entry of the corpus.
    #[error("{0}: {1}")]
    Entry(PathBuf, EntryError),
    /// The plan to be shrunk does not fail.
    #[error("the plan does not fail{}, so there is nothing to shrink: see its verdict with `squall run`", with(.0))]
    DoesNotFail(Option<String>),
    /// A patch cannot be read.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A defect cannot be planted.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The file of an earlier measurement cannot be read.
    #[error("cannot read {0}: {1}. Name a file with the output of `squall defects --json`")]
    ReadMeasured(PathBuf, std::io::Error),
    /// A line of the file is not a measurement.
    #[error("{path}, line {line}: {cause}. Name a file with the output of `squall defects --json`")]
    Measured {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The parser's error.
        cause: serde_json::Error,
    },
    /// The file has no measurement of a defect.
    #[error("{0} has no measurement of {1}: name one of the defects in it, or none for all")]
    NotMeasured(PathBuf, String),
    /// The folder of a soak cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The shard has no seeds.
    #[error("shard {0} has none of the seeds: give a larger range, or fewer shards")]
    EmptyShard(Shard),
    /// A process for seeds cannot be started.
    #[error("cannot start a process to run seeds in: {0}")]
    Start(std::io::Error),
    /// A file or directory cannot be created.
    #[error("cannot create {0}: {1}")]
    Create(PathBuf, std::io::Error),
    /// The instance cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The deployment has no database.
    #[error("there is no database at {0}: name the configuration file of a deployment that has run")]
    NoDatabase(PathBuf),
    /// The broker refused the follower.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The follower heard nothing at all.
    #[error(
        "nothing was heard of {server_name} on the broker at {broker}{why}, so nothing was checked: correct the broker's \
         address or the server name"
    )]
    Unheard {
        /// The server's name.
        server_name: String,
        /// The broker's address.
        broker: Address,
        /// The last reason why there was no subscription, in parentheses.
        why: String,
    },
    /// TLS to the broker cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker cannot be used as it was named.
    #[error(transparent)]
    Broker(#[from] BrokerArgumentError),
    /// The name of the homeserver is missing.
    #[error(transparent)]
    ServerName(#[from] ServerNameError),
    /// The configuration of Synapse cannot be used.
    #[error(transparent)]
    SynapseConfig(#[from] SynapseConfigError),
    /// The address for metrics cannot be bound.
    #[error("cannot serve metrics at {0}: {1}. Name an address of this machine and a free port")]
    Metrics(SocketAddr, std::io::Error),
    /// The log level does not exist.
    #[error(
        "{0:?} is not a log level: write error, warn, info, debug or trace, or a level for each module, such as \
         squall::transport=debug,info"
    )]
    LogLevel(String),
    /// The runtime or the signal handlers cannot be set up.
    #[error("cannot start the runtime: {0}")]
    Begin(std::io::Error),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Write(#[from] std::io::Error),
}

/// Parses the process's arguments and runs the command that they name.
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
        Command::Repair(arguments) => repair::repair(&arguments),
        Command::Plan(arguments) => plan::print(&arguments),
    };
    match result {
        Ok(status) => status,
        // The reader of the output has closed it, as `head` does.
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
            processes::Error::Report(error) => CliError::Write(error),
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

/// Returns exit status 0 if there is no finding, and 1 otherwise.
fn status(all_well: bool) -> ExitCode {
    if all_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Returns the number of cores that this process may use: the default of `--jobs`.
fn all_cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
