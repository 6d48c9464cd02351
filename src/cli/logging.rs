//! The log of `squall serve`, on standard error.
//!
//! A thread of its own writes the lines, from a queue. So a reader of the log that stands still stops nothing else. Lines that
//! find the queue full are dropped and counted.

use std::io;
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::CliError;
use crate::metrics::ReadCount;

/// Largest number of lines that wait to be written.
const LINES_QUEUED_MAX: usize = 10_000;

/// The thread that writes the log. It is ended by [`end`].
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// The format of the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    /// Text.
    Text,
    /// One JSON object on each line.
    Json,
}

/// Begins to log on standard error. Returns a function that counts the lines that were dropped.
///
/// # Errors
/// There is no such level.
pub(super) fn begin(format: LogFormat, level: &str) -> Result<ReadCount, CliError> {
    // `Targets` takes any other word for the name of a module, and would log nothing.
    let is_known = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    let levels = level.parse::<Targets>().ok().filter(|_| level.split(',').all(is_known));
    let levels = levels.ok_or_else(|| CliError::LogLevel(level.to_owned()))?;
    let queue = NonBlockingBuilder::default().buffered_lines_limit(LINES_QUEUED_MAX).lossy(true);
    let (writer, guard) = queue.thread_name("log").finish(io::stderr());
    let dropped = writer.error_counter();
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let layer = fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(levels)).init();
    Ok(Box::new(move || dropped.dropped_lines() as u64))
}

/// Writes the lines that wait. Gives up after about a second.
pub(super) fn end() {
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}
