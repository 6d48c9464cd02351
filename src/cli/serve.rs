//! `squall serve`: runs one instance.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use clap::Args;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::CliError;
use super::logging::{self, LogFormat};
use super::signals::Signals;
use crate::metrics::ReadCount;
use crate::serve::{File, ServeError, serve as serve_instance};
use squall_protocol::InstanceName;

/// The environment variable with the log level, if there is no option.
const LEVEL_VARIABLE: &str = "SQUALL_LOG";

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Configuration file of the deployment, in TOML. All instances may share one file; see docs/operators.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name of the instance to run.
    #[arg(long, value_name = "NAME")]
    instance: String,
    /// Address to serve /metrics and /health on, instead of the one in the configuration file.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Format of the log on standard error.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
    /// Log level: error, warn, info, debug or trace, or a level for each module, such as squall::transport=debug,info. The
    /// default is the environment variable SQUALL_LOG, or else info.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

pub(super) fn serve(arguments: &ServeArguments) -> Result<ExitCode, CliError> {
    let level = match &arguments.log_level {
        Some(level) => level.clone(),
        None => std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| "info".to_owned()),
    };
    let lines_dropped = logging::begin(arguments.log, &level)?;
    let served = run(arguments, lines_dropped);
    logging::end();
    served
}

fn run(arguments: &ServeArguments, lines_dropped: ReadCount) -> Result<ExitCode, CliError> {
    let file = File::load(&arguments.config).map_err(ServeError::from)?;
    end_when_a_task_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Begin)?;
    LocalSet::new().block_on(&runtime, until_stopped(arguments, &file, lines_dropped))
}

/// Serves the instance until a signal asks the process to stop. Then shuts down, or ends at once at a second signal.
async fn until_stopped(
    arguments: &ServeArguments,
    file: &File,
    lines_dropped: ReadCount,
) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen().map_err(CliError::Begin)?;
    let name = InstanceName::from(arguments.instance.as_str());
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let mut stop = Some(stop);
    let mut serving = pin!(serve_instance(file, &name, arguments.metrics, lines_dropped, stopped));
    loop {
        tokio::select! {
            biased;
            served = &mut serving => return Ok(served.map(|()| ExitCode::SUCCESS)?),
            (signal, number) = signals.next() => {
                tracing::info!(signal, "stopping");
                if stop.take().is_none() {
                    return Ok(ExitCode::from(128 + number));
                }
            }
        }
    }
}

/// Ends the process when a task panics. Other instances would wait in vain for an instance without that task, and a
/// service manager can restart a process that has ended.
fn end_when_a_task_panics() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "ending");
        logging::end();
        std::process::exit(101);
    }));
}
