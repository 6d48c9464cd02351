//! `squall defects`: plant known defects and measure how soon the storm finds each.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::ProgressBar;

use super::{CliError, status, summary};
use crate::sim::defects::{self, Measured, Options, Patch, SHRUNK_MAX, Workshop};
use crate::sim::plan::Scenario;
use crate::sim::shrink::RUNS_MAX;

/// Where the patches are.
const PATCHES: &str = "sims/defects";
/// Where the corpus is.
const CORPUS: &str = "seeds";
/// Where defects are planted and built.
const WORKSHOP: &str = "target/defects";

#[derive(Debug, Args)]
pub(super) struct DefectsArguments {
    /// Which ones, by name; all of them if none is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Look for each in this scenario, whichever its patch names.
    #[arg(long, value_name = "NAME")]
    scenario: Option<Scenario>,
    /// In how many disjoint ranges of seeds each is looked for.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    ranges: u64,
    /// How many seeds a range has.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many seeds run at the same time.
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Keep the shrunk plan of each defect that has no entry in seeds/ yet.
    #[arg(long)]
    keep: bool,
    /// Print what came of each as one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
}

pub(super) fn defects(arguments: &DefectsArguments) -> Result<ExitCode, CliError> {
    let mut patches = match &arguments.names[..] {
        [] => Patch::read_all(Path::new(PATCHES))?,
        names => {
            let path = |name: &String| Path::new(PATCHES).join(name).with_extension("patch");
            names.iter().map(|name| Patch::read(&path(name))).collect::<Result<Vec<_>, _>>()?
        }
    };
    if let Some(scenario) = arguments.scenario {
        patches.iter_mut().for_each(|patch| patch.scenario = scenario);
    }
    let options =
        Options { ranges: arguments.ranges, seeds: arguments.seeds, jobs: arguments.jobs, shrink_runs: RUNS_MAX };
    let workshop = Workshop::open(Path::new(WORKSHOP))?;
    let mut stdout = io::stdout();
    if !arguments.json {
        writeln!(stdout, "{HEAD}")?;
    }
    let mut all_well = true;
    for patch in &patches {
        let spinner = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let say = |what: &str| spinner.set_message(format!("{}: {what}", patch.name));
        let (measured, entry) = match defects::measure(&workshop, patch, &options, Path::new(CORPUS), say) {
            Ok(measured) => measured,
            // The others are measured all the same.
            Err(error) => {
                spinner.finish_and_clear();
                eprintln!("error: {error}");
                all_well = false;
                continue;
            }
        };
        spinner.finish_and_clear();
        all_well &= measured.is_well();
        if arguments.json {
            writeln!(stdout, "{}", serde_json::to_string(&measured).expect("it is plain data"))?;
        } else {
            writeln!(stdout, "{}", row(&measured))?;
        }
        if let Some(entry) =
            entry.filter(|_| arguments.keep && measured.passes_without && measured.corpus_finds.is_none())
        {
            let path = PathBuf::from(CORPUS).join(&patch.name).with_extension("json");
            entry.write(&path).map_err(|error| CliError::Create(path, error))?;
        }
    }
    Ok(status(all_well))
}

/// The table's head, as rows of Markdown.
const HEAD: &str =
    "| defect | known from | found by | seeds | median | s | shrunk to | |\n|---|---|---|---|---|---|---|---|";

/// What came of one, as a row of the table.
fn row(measured: &Measured) -> String {
    let seeds = measured.seeds_to_find.iter().map(|seeds| seeds.map_or("–".to_owned(), |seeds| seeds.to_string()));
    let shrunk = measured.shrunk.map_or(String::new(), |size| {
        let things =
            [(size.faults, "fault"), (size.operations, "operation"), (size.clients, "client"), (size.hosts, "host")];
        things.map(|(count, thing)| summary::of_count(count, thing)).join(", ")
    });
    let (faults_max, operations_max) = SHRUNK_MAX;
    let mut remarks = Vec::new();
    if let Some(why) = &measured.rare {
        remarks.push(format!("rare, found by its entry in seeds/: {why}"));
    }
    if !measured.found {
        remarks.push("not found everywhere".to_owned());
    }
    if measured.shrunk.is_some() && !measured.passes_without {
        remarks.push("the plan fails without it too".to_owned());
    }
    if measured.corpus_finds == Some(false) {
        remarks.push("its entry in seeds/ is stale".to_owned());
    }
    if measured.shrunk.is_some_and(|size| !size.is_small()) {
        remarks.push(format!("more than {faults_max} faults or {operations_max} operations"));
    }
    format!(
        "| {} | {} | {}{} | {} | {} | {} | {shrunk} | {} |",
        measured.name,
        measured.upstream,
        measured.invariant,
        if measured.scenario == "storm" { String::new() } else { format!(" ({})", measured.scenario) },
        seeds.collect::<Vec<_>>().join(", "),
        measured.median().map_or("–".to_owned(), |median| median.to_string()),
        measured.wall_s,
        remarks.join("; "),
    )
}
