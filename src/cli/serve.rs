//! `squall serve`: run one instance.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::CliError;
use super::signals::Signals;
use crate::protocol::InstanceName;
use crate::serve::{File, ServeError, serve as serve_instance};

/// Where the level is looked for if there is no option.
const LEVEL_VARIABLE: &str = "SQUALL_LOG";

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// The deployment and its database, in TOML. Its instances may share one file; see the README.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which instance of the deployment to run.
    #[arg(long, value_name = "NAME")]
    instance: String,
    /// Where to serve /metrics and /health. Otherwise where the file says, if it does.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// What a line of the log, on standard error, is.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
    /// What is logged: error, warn, info, debug or trace; for a part of the program alone, squall::transport=debug,info.
    /// Otherwise what the environment variable SQUALL_LOG says, or else info.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// What a line of the log is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

pub(super) fn serve(arguments: &ServeArguments) -> Result<ExitCode, CliError> {
    let level = match &arguments.log_level {
        Some(level) => level.clone(),
        None => std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| "info".to_owned()),
    };
    log(arguments.log, &level)?;
    let file = File::load(&arguments.config).map_err(ServeError::from)?;
    end_when_a_task_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Begin)?;
    LocalSet::new().block_on(&runtime, until_stopped(arguments, &file))
}

/// Serves until a signal asks to stop, and then until that is done or another signal asks.
async fn until_stopped(arguments: &ServeArguments, file: &File) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen().map_err(CliError::Begin)?;
    let name = InstanceName::from(arguments.instance.as_str());
    let (stop, asked) = oneshot::channel::<()>();
    let asked = async {
        let _ = asked.await;
    };
    let mut stop = Some(stop);
    let mut serving = pin!(serve_instance(file, &name, arguments.metrics, asked));
    loop {
        tokio::select! {
            biased;
            served = &mut serving => return Ok(served.map(|()| ExitCode::SUCCESS)?),
            (signal, number) = signals.next() => {
                tracing::info!(signal, "asked to stop");
                if stop.take().is_none() {
                    return Ok(ExitCode::from(128 + number));
                }
            }
        }
    }
}

/// Logs on standard error from now on.
fn log(format: LogFormat, level: &str) -> Result<(), CliError> {
    // Anything that is no level would be taken for a part of the program, of which there is none of that name.
    let is_known = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    let levels = level.parse::<Targets>().ok().filter(|_| level.split(',').all(is_known));
    let levels = levels.ok_or_else(|| CliError::LogLevel(level.to_owned()))?;
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(levels)).init();
    Ok(())
}

/// An instance one of whose tasks has panicked would be one that others wait for in vain. Whoever looks after the process
/// can start another.
fn end_when_a_task_panics() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "ending");
        std::process::exit(101);
    }));
}
