//! `squall follow`: follows a live deployment on its Redis broker and checks its traffic.

mod broker;
mod live;
mod output;
mod password;

use std::cell::Cell;
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use prometheus::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::findings::FindingArguments;
use super::signals::Signals;
use super::synapse_config::SynapseConfig;
use super::writers::WriterArguments;
use super::{CliError, duration, status};
use crate::follow::{Event, FollowMetrics, Follower, Journal, Target, Watcher, listen};
use crate::metrics::{self, Health, METRICS_CONNECTIONS_MAX};
use crate::observer::{Env, process_env};
use crate::private_file;
use crate::tasks;
use broker::BrokerArguments;
use output::Output;
use squall_env::Noop;
use squall_judge::audit::{Audit, Transport, Writers};
use squall_judge::observation::SimTime;
use squall_protocol::Dialect;

pub(super) use broker::BrokerArgumentError;

#[derive(Debug, Args)]
pub(super) struct FollowArguments {
    #[command(flatten)]
    broker: BrokerArguments,
    /// The name of the homeserver. Its channels on the broker have this name.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    #[arg(required_unless_present = "synapse_config")]
    server_name: Option<String>,
    /// Publish one REPLICATE, so that every writer announces its positions. Nothing else is ever published.
    #[arg(long)]
    send_replicate: bool,
    #[command(flatten)]
    writers: WriterArguments,
    #[command(flatten)]
    findings: FindingArguments,
    /// The version of Synapse whose grammar the payloads have: 1.163 or 1.19. Without it, the first payload that differs
    /// between the two decides.
    #[arg(long)]
    dialect: Option<Dialect>,
    /// Record the traffic in a new file, which `squall audit` reads.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Serve /metrics, for Prometheus, and /health at this address.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Print habits one by one, and list every writer and every gap in the summary.
    #[arg(long)]
    verbose: bool,
    /// Print one JSON object for each event, and one for the summary.
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
    /// End after this time, such as 8h, 10m or 90s. Otherwise SIGINT or SIGTERM ends it.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
}

/// The name of the homeserver is nowhere.
#[derive(Debug, Error)]
#[error("the files of --synapse-config have no server_name: add the file that has it, or name it by --server-name")]
pub(super) struct ServerNameError;

impl FollowArguments {
    /// Returns the deployment to follow.
    fn target(&self, synapse: Option<&SynapseConfig>) -> Result<Target, CliError> {
        let broker = self.broker.broker(synapse)?;
        let of_synapse = |synapse: &SynapseConfig| synapse.server_name.clone();
        let server_name = self.server_name.clone().or_else(|| synapse.and_then(of_synapse));
        let server_name = server_name.ok_or(ServerNameError)?;
        Ok(Target { broker, server_name, send_replicate: self.send_replicate })
    }
}

/// Passes events on to the output, the metrics and the health check.
struct Outputs<'a> {
    output: Output<'a>,
    metrics: Option<FollowMetrics>,
    /// True if there is no subscription, for the health check.
    is_disconnected: Rc<Cell<bool>>,
}

impl Watcher for Outputs<'_> {
    fn on_event(&mut self, now: SimTime, event: Event<'_>, follower: &Follower) {
        self.is_disconnected.set(follower.disconnected().is_some());
        if let Some(metrics) = &self.metrics {
            metrics.on_event(now, event, follower);
        }
        self.output.event(now, event, follower);
    }
}

pub(super) fn follow(arguments: &FollowArguments) -> Result<ExitCode, CliError> {
    let synapse = arguments.writers.synapse()?;
    let writers = arguments.writers.by_stream(synapse.as_ref())?;
    let target = arguments.target(synapse.as_ref())?;
    let recording = match &arguments.record {
        Some(path) => {
            let file = private_file::options().write(true).create_new(true).open(path);
            let file = file.map_err(|error| CliError::Create(path.clone(), error))?;
            Some(Box::new(BufWriter::new(file)) as Box<dyn Write>)
        }
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Begin)?;
    LocalSet::new().block_on(&runtime, follow_until_end(arguments, &target, &writers, recording))
}

/// Starts to serve the metrics and the health check.
async fn serve_metrics(
    address: SocketAddr,
    env: &Env,
    is_disconnected: &Rc<Cell<bool>>,
) -> Result<FollowMetrics, CliError> {
    let listener = TcpListener::bind(address).await.map_err(|error| CliError::Metrics(address, error))?;
    let registry = Registry::new();
    let metrics = FollowMetrics::new(&registry).expect("the registry is empty");
    let is_disconnected = Rc::clone(is_disconnected);
    let health = Rc::new(move || match is_disconnected.get() {
        true => Health::Bad("not subscribed to the broker".to_owned()),
        false => Health::Good,
    });
    let serving = metrics::serve(Box::new(listener), METRICS_CONNECTIONS_MAX, registry, health, env.tasks.clone());
    env.tasks.spawn(tasks::SERVE_METRICS, serving);
    Ok(metrics)
}

async fn follow_until_end(
    arguments: &FollowArguments,
    target: &Target,
    writers: &Writers,
    recording: Option<Box<dyn Write>>,
) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen().map_err(CliError::Begin)?;
    let env = broker::with_tls(&target.broker, process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop)))?;
    let is_disconnected = Rc::new(Cell::new(true));
    let metrics = match arguments.metrics {
        Some(address) => Some(serve_metrics(address, &env, &is_disconnected).await?),
        None => None,
    };
    let output = Output::new(arguments, &target.server_name, &target.broker.address());
    let closed = output.closed();
    let mut watcher = Outputs { output, metrics, is_disconnected };
    let audit =
        Audit::new(Transport::Redis, arguments.dialect).with_writers(writers).ignoring(arguments.findings.ignored());
    let mut follower = Follower::new(audit, Journal::new(&*env.clock, recording), &mut watcher);
    let time_over = async {
        match arguments.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let refused = tokio::select! {
        biased;
        _ = signals.next() => None,
        () = time_over => None,
        // The reader of the output has closed it.
        () = closed.notified() => None,
        refused = listen(target, &env, &mut follower, &mut watcher) => Some(refused),
    };
    if let Some(refused) = refused {
        watcher.output.clear();
        return Err(refused.into());
    }
    let disconnected = follower.disconnected().map(str::to_owned);
    follower.end(&mut watcher);
    watcher.output.summary(&follower);
    if !follower.has_heard() {
        let why = disconnected.map(|why| format!(" ({why})")).unwrap_or_default();
        let broker = target.broker.address();
        return Err(CliError::Unheard { server_name: target.server_name.clone(), broker, why });
    }
    Ok(match follower.recording_error() {
        Some(_) => ExitCode::from(2),
        None => status(!follower.found().any(|(_, class, _)| arguments.findings.counts(class))),
    })
}
