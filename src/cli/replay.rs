//! `squall replay`: run what was found once, and see that it has not come back.
//!
//! An entry that passes without having come to what made it fail once is stale, and counts as failed.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{CliError, status, summary};
use crate::sim::corpus::Entry;
use crate::sim::engine::EngineName;
use crate::sim::verdict::Report;

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// Entries of the corpus, such as seeds/*.json.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Which engine simulates, instead of the one that each entry names.
    #[arg(long)]
    engine: Option<EngineName>,
    /// Print each verdict as one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Replayed<'a> {
    name: &'a str,
    catches: &'a str,
    /// What a run of it came to once and this one did not.
    missing: &'a [String],
    #[serde(flatten)]
    report: Report<'a>,
}

pub(super) fn replay(arguments: &ReplayArguments) -> Result<ExitCode, CliError> {
    // All of them are read before the first one runs: a mistyped name is told at once.
    let read = |path: &PathBuf| Entry::read(path).map_err(|error| CliError::Entry(path.clone(), error));
    let entries = arguments.files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut stdout = std::io::stdout();
    let mut failed = 0;
    for (path, entry) in arguments.files.iter().zip(&entries) {
        let engine = arguments.engine.unwrap_or(entry.engine);
        let verdict = entry.replay_on(engine);
        let argument = arguments.engine.map(|engine| format!(" --engine {engine}")).unwrap_or_default();
        let reproduction = format!("cargo run --release -- replay{argument} {}", path.display());
        // Another engine may come to other things.
        let missing = if engine == entry.engine { entry.missing(&verdict) } else { Vec::new() };
        failed += usize::from(!verdict.passed() || !missing.is_empty());
        let (name, catches) = (&entry.name, &entry.catches);
        if arguments.json {
            let replayed = Replayed { name, catches, missing: &missing, report: verdict.report(&reproduction) };
            let line = serde_json::to_string(&replayed).expect("a verdict is plain data");
            writeln!(stdout, "{line}")?;
            continue;
        }
        writeln!(stdout, "{name}: {}, catches {catches}", verdict.verdict)?;
        if !verdict.passed() {
            write!(stdout, "{}", summary::of_failure(&verdict))?;
            writeln!(stdout, "{}\n{reproduction}", entry.story)?;
        } else if !missing.is_empty() {
            writeln!(stdout, "stale: its run no longer comes to {}; find it anew", missing.join(", "))?;
        }
    }
    if !arguments.json {
        writeln!(stdout, "{} replayed, {failed} failed", entries.len())?;
    }
    Ok(status(failed == 0))
}
