//! `squall follow`: follows a live deployment on its Redis broker and checks its traffic.

mod output;

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use prometheus::Registry;
use redis::{ConnectionAddr, IntoConnectionInfo};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::audit::WriterArguments;
use super::signals::Signals;
use super::{CliError, duration, status};
use crate::follow::{Event, FollowMetrics, Follower, Journal, Target, Watcher, listen};
use crate::metrics::{self, Health};
use crate::observer::{Env, process_env};
use crate::tasks;
use crate::transport::RedisConfig;
use output::Output;
use squall_env::{Noop, TlsConfig};
use squall_judge::audit::{Audit, Transport, Writers};
use squall_judge::observation::SimTime;
use squall_protocol::Dialect;

#[derive(Debug, Args)]
pub(super) struct FollowArguments {
    /// The broker: redis://HOST, redis://:PASSWORD@HOST:PORT or redis://USER:PASSWORD@HOST:PORT; rediss:// for TLS.
    #[arg(long = "redis", value_name = "URL", value_parser = Broker::parse)]
    broker: Broker,
    #[command(flatten)]
    tls: TlsArguments,
    /// The name of the homeserver. Its channels on the broker have this name.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    server_name: String,
    /// Publish one REPLICATE, so that every writer announces its positions. Nothing else is ever published.
    #[arg(long)]
    send_replicate: bool,
    #[command(flatten)]
    writers: WriterArguments,
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
    /// List every writer and every gap in the summary.
    #[arg(long)]
    verbose: bool,
    /// Print one JSON object for each event, and one for the summary.
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
    /// End after this time, such as 8h, 10m or 90s. Otherwise SIGINT or SIGTERM ends it.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
}

/// Files for TLS.
#[derive(Debug, Args)]
struct TlsArguments {
    /// Trust the certificate authorities in this PEM file instead of those of this machine. Only for rediss://, like the
    /// next two.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Present the certificate in this PEM file to the broker.
    #[arg(long, value_name = "FILE", requires = "private_key_file")]
    certificate_file: Option<PathBuf>,
    /// The private key of that certificate.
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    private_key_file: Option<PathBuf>,
}

impl TlsArguments {
    fn env(&self, broker: &RedisConfig, env: Env) -> Result<Env, CliError> {
        let TlsArguments { ca_file, certificate_file, private_key_file } = self;
        if broker.tls.is_some() {
            let config = TlsConfig {
                ca_file: ca_file.clone(),
                certificate_file: certificate_file.clone(),
                private_key_file: private_key_file.clone(),
            };
            return Ok(env.with_tls(broker.address(), &config)?);
        }
        match ca_file.as_ref().or(certificate_file.as_ref()) {
            Some(file) => Err(CliError::NoTls(file.clone())),
            None => Ok(env),
        }
    }
}

/// The broker's address and credentials.
#[derive(Debug, Clone)]
struct Broker {
    config: RedisConfig,
    user: Option<String>,
}

impl Broker {
    fn parse(url: &str) -> Result<Broker, String> {
        let form = "write redis://HOST:PORT, or rediss:// for TLS, with :PASSWORD@ or USER:PASSWORD@ before the host if the \
            broker asks for one";
        let (plain, tls) = match url.strip_prefix("rediss:") {
            Some(rest) => (format!("redis:{rest}"), Some(TlsConfig::default())),
            None => (url.to_owned(), None),
        };
        let info = plain.into_connection_info().map_err(|_| format!("not the address of a broker: {form}"))?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(format!("only Redis over TCP can be followed: {form}"));
        };
        if host.is_empty() {
            return Err(format!("the address has no host: {form}"));
        }
        let user = info.redis_settings().username();
        let password = info.redis_settings().password().map(str::to_owned);
        let config = RedisConfig { host: host.as_str().into(), port: *port, password, tls };
        Ok(Broker { config, user: user.map(str::to_owned) })
    }
}

/// Passes events on to the output, the metrics and the health check.
struct Outputs {
    output: Output,
    metrics: Option<FollowMetrics>,
    /// True if there is no subscription, for the health check.
    is_disconnected: Rc<Cell<bool>>,
}

impl Watcher for Outputs {
    fn on_event(&mut self, now: SimTime, event: Event<'_>, follower: &Follower) {
        self.is_disconnected.set(follower.disconnected().is_some());
        if let Some(metrics) = &self.metrics {
            metrics.on_event(now, event, follower);
        }
        self.output.event(now, event, follower);
    }
}

pub(super) fn follow(arguments: &FollowArguments) -> Result<ExitCode, CliError> {
    let writers = arguments.writers.by_stream()?;
    let recording = match &arguments.record {
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let file = file.map_err(|error| CliError::Create(path.clone(), error))?;
            Some(Box::new(BufWriter::new(file)) as Box<dyn Write>)
        }
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Begin)?;
    LocalSet::new().block_on(&runtime, follow_until_end(arguments, &writers, recording))
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
    env.tasks.spawn(tasks::SERVE_METRICS, metrics::serve(Box::new(listener), registry, health, env.tasks.clone()));
    Ok(metrics)
}

async fn follow_until_end(
    arguments: &FollowArguments,
    writers: &Writers,
    recording: Option<Box<dyn Write>>,
) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen().map_err(CliError::Begin)?;
    let Broker { config: broker, user } = arguments.broker.clone();
    let env = arguments.tls.env(&broker, process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop)))?;
    let is_disconnected = Rc::new(Cell::new(true));
    let metrics = match arguments.metrics {
        Some(address) => Some(serve_metrics(address, &env, &is_disconnected).await?),
        None => None,
    };
    let output = Output::new(arguments.json, arguments.verbose, &arguments.server_name, &broker.address());
    let closed = output.closed();
    let mut watcher = Outputs { output, metrics, is_disconnected };
    let target =
        Target { broker, user, server_name: arguments.server_name.clone(), send_replicate: arguments.send_replicate };
    let audit = Audit::new(Transport::Redis, arguments.dialect).with_writers(writers);
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
        refused = listen(&target, &env, &mut follower, &mut watcher) => Some(refused),
    };
    if let Some(refused) = refused {
        watcher.output.clear();
        return Err(refused.into());
    }
    follower.end(&mut watcher);
    watcher.output.summary(&follower);
    Ok(match follower.recording_error() {
        Some(_) => ExitCode::from(2),
        None => status(follower.found().is_empty()),
    })
}
