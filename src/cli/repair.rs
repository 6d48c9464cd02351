//! `squall repair`: lowers recorded positions that no writer can have reached.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Args;

use super::CliError;
use crate::serve::{File, ServeError};
use crate::store::repair::{PastSequence, lower_positions};
use crate::store::{Database, DatabaseError, SqliteBackend};

#[derive(Debug, Args)]
pub(super) struct RepairArguments {
    /// Configuration file of the deployment. Stop all its instances first.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only print the positions.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn repair(arguments: &RepairArguments) -> Result<ExitCode, CliError> {
    let file = File::load(&arguments.config).map_err(ServeError::from)?;
    let path = file.database;
    if !path.exists() {
        return Err(CliError::NoDatabase(path));
    }
    let failed = |error: DatabaseError| ServeError::Database { path: path.clone(), error };
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(CliError::Begin)?;
    let database = Database::new(Rc::new(SqliteBackend::open(&path).map_err(failed)?));
    let lowered = runtime.block_on(lower_positions(&database, arguments.dry_run)).map_err(failed)?;
    let mut stdout = io::stdout();
    if lowered.is_empty() {
        writeln!(stdout, "no position is past the last id of its stream: nothing to repair")?;
    }
    let verb = if arguments.dry_run { "would be lowered" } else { "was lowered" };
    for PastSequence { stream, writer, position, last_allocated } in lowered {
        writeln!(stdout, "{stream} of {writer}: {position} {verb} to {last_allocated}, the last id")?;
    }
    Ok(ExitCode::SUCCESS)
}
