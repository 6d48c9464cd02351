//! `squall follow`: listen to a live deployment and judge what is heard.

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
use crate::env::{Env, Silent, TlsConfig};
use crate::follow::{FollowMetrics, Follower, Journal, News, Target, Watcher, listen};
use crate::instance::config::RedisConfig;
use crate::judge::audit::{Audit, Transport, Writers};
use crate::judge::observation::Moment;
use crate::metrics;
use crate::protocol::Dialect;
use output::Output;

#[derive(Debug, Args)]
pub(super) struct FollowArguments {
    /// The broker: redis://HOST, redis://:PASSWORD@HOST:PORT or redis://USER:PASSWORD@HOST:PORT; rediss:// for TLS.
    #[arg(long = "redis", value_name = "URL", value_parser = Broker::parse)]
    broker: Broker,
    #[command(flatten)]
    tls: TlsArguments,
    /// The name of the homeserver, which its channels are called by.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    server_name: String,
    /// Ask everybody for their positions, once, by a REPLICATE. Nothing else is ever published.
    #[arg(long)]
    announce: bool,
    #[command(flatten)]
    writers: WriterArguments,
    /// Whose grammar the payloads have: 1.163 or 1.19. Otherwise the first line that tells decides.
    #[arg(long)]
    dialect: Option<Dialect>,
    /// Keep what is heard in a new file, which `squall audit` reads.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Serve /metrics, for Prometheus, and /health here.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Print one JSON object for everything there is to tell.
    #[arg(long)]
    json: bool,
    /// End after so long, such as 8h, 10m or 90s. Otherwise SIGINT or SIGTERM ends it.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
}

/// Whom to trust over TLS, and how to be trusted.
#[derive(Debug, Args)]
struct TlsArguments {
    /// Trust the certificate authorities in this file, in PEM, instead of those of this machine. For rediss:// only, as
    /// the next two.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Show this certificate to a broker that asks for one.
    #[arg(long, value_name = "FILE", requires = "private_key_file")]
    certificate_file: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    private_key_file: Option<PathBuf>,
}

impl TlsArguments {
    fn env(&self, broker: &RedisConfig, env: Env) -> Result<Env, CliError> {
        let TlsArguments { ca_file, certificate_file, private_key_file } = self;
        if broker.tls.is_some() {
            let (ca_file, certificate_file) = (ca_file.clone(), certificate_file.clone());
            let config = TlsConfig { ca_file, certificate_file, private_key_file: private_key_file.clone() };
            return Ok(env.with_tls(broker.address(), &config)?);
        }
        match ca_file.as_ref().or(certificate_file.as_ref()) {
            Some(file) => Err(CliError::NoTls(file.clone())),
            None => Ok(env),
        }
    }
}

/// Where the broker is, and how to be let in.
#[derive(Debug, Clone)]
struct Broker {
    config: RedisConfig,
    user: Option<String>,
}

impl Broker {
    fn parse(url: &str) -> Result<Broker, String> {
        let form = "write redis://HOST:PORT, or rediss:// for TLS, with :PASSWORD@ or USER:PASSWORD@ before the host if it \
            asks for one";
        let (plain, tls) = match url.strip_prefix("rediss:") {
            Some(rest) => (format!("redis:{rest}"), Some(TlsConfig::default())),
            None => (url.to_owned(), None),
        };
        let info = plain.into_connection_info().map_err(|_| format!("no address of a broker: {form}"))?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(format!("only Redis over TCP can be followed: {form}"));
        };
        if host.is_empty() {
            return Err(format!("no host: {form}"));
        }
        let (user, password) = (info.redis_settings().username(), info.redis_settings().password());
        let password = password.map(str::to_owned);
        let config = RedisConfig { host: host.as_str().into(), port: *port, password, tls };
        Ok(Broker { config, user: user.map(str::to_owned) })
    }
}

/// Tells everybody who wants to know.
struct Everybody {
    output: Output,
    metrics: Option<FollowMetrics>,
    /// Why nothing is heard, for whoever asks for the health.
    is_deaf: Rc<Cell<bool>>,
}

impl Watcher for Everybody {
    fn tell(&mut self, now: Moment, news: News<'_>, follower: &Follower) {
        self.is_deaf.set(follower.deaf().is_some());
        if let Some(metrics) = &self.metrics {
            metrics.tell(now, news, follower);
        }
        self.output.tell(now, news, follower);
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
    LocalSet::new().block_on(&runtime, until_over(arguments, &writers, recording))
}

/// Serves metrics and the health from now on.
async fn serve_metrics(address: SocketAddr, env: &Env, is_deaf: &Rc<Cell<bool>>) -> Result<FollowMetrics, CliError> {
    let listener = TcpListener::bind(address).await.map_err(|error| CliError::Metrics(address, error))?;
    let registry = Registry::new();
    let metrics = FollowMetrics::new(&registry).expect("the registry is empty");
    let is_deaf = Rc::clone(is_deaf);
    let health = Rc::new(move || if is_deaf.get() { Err("not subscribed with the broker".to_owned()) } else { Ok(()) });
    env.tasks.spawn("serve_metrics", metrics::serve(Box::new(listener), registry, health, env.tasks.clone()));
    Ok(metrics)
}

async fn until_over(
    arguments: &FollowArguments,
    writers: &Writers,
    recording: Option<Box<dyn Write>>,
) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen().map_err(CliError::Begin)?;
    let Broker { config: broker, user } = arguments.broker.clone();
    let env = arguments.tls.env(&broker, Env::of_process(Ipv4Addr::LOCALHOST.into(), Rc::new(Silent)))?;
    let is_deaf = Rc::new(Cell::new(true));
    let metrics = match arguments.metrics {
        Some(address) => Some(serve_metrics(address, &env, &is_deaf).await?),
        None => None,
    };
    let output = Output::new(arguments.json, &arguments.server_name, &broker.address());
    let gone = output.gone();
    let mut watcher = Everybody { output, metrics, is_deaf };
    let target = Target { broker, user, server_name: arguments.server_name.clone(), announce: arguments.announce };
    let audit = Audit::new(Transport::Redis, arguments.dialect).with_writers(writers);
    let mut follower = Follower::new(audit, Journal::new(&*env.clock, recording), &mut watcher);
    let over = async {
        match arguments.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let refused = tokio::select! {
        biased;
        _ = signals.next() => None,
        () = over => None,
        // Whoever reads our output has had enough of it.
        () = gone.notified() => None,
        refused = listen(&target, &env, &mut follower, &mut watcher) => Some(refused),
    };
    if let Some(refused) = refused {
        watcher.output.clear();
        return Err(refused.into());
    }
    follower.end(&mut watcher);
    watcher.output.sum_up(&follower);
    Ok(match follower.recording_error() {
        Some(_) => ExitCode::from(2),
        None => status(follower.found().is_empty()),
    })
}
