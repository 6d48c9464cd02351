//! `squall defects`: plants known defects, and measures how soon a search of seeds finds each.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::ProgressBar;

use super::table::{Align, Table, wrap};
use super::{CliError, all_cores, scenarios, status, summary};
use crate::sim::defects::{
    self, DefectBuilder, DefectSet, Measured, Options, Patch, SHRUNK_FAULTS_MAX, SHRUNK_OPERATIONS_MAX, Size,
};
use crate::sim::plan::Scenario;
use crate::sim::shrink::RUNS_MAX;

/// The directory of the patches.
const PATCHES: &str = "sims/defects";
/// The directory of the corpus.
const CORPUS: &str = "seeds";
/// The directory in which defects are planted and built.
const BUILDS: &str = "target/defects";

#[derive(Debug, Args)]
pub(super) struct DefectsArguments {
    /// Names of the defects; all of them by default.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Scenario to search, instead of the one that each patch names.
    #[arg(long, value_name = "NAME", value_parser = scenarios())]
    scenario: Option<Scenario>,
    /// Set of defects, where no names are given: those that are found soon, or those that need rare situations in order.
    #[arg(long, value_name = "SET", default_value = DefectSet::Common.name(), value_parser = sets(), conflicts_with = "names")]
    set: DefectSet,
    /// Number of disjoint ranges of seeds to search; 0 only replays the entries in seeds/.
    #[arg(long, value_name = "N", default_value_t = 5)]
    ranges: u64,
    /// Number of seeds in a range [default: 1000, and 10000 for a defect of the deep set].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Number of seeds that run at the same time [default: all cores].
    #[arg(long, value_name = "N", default_value_t = all_cores(), hide_default_value = true)]
    jobs: NonZeroUsize,
    /// Write the shrunk plan of each defect to seeds/, unless it has an entry there already.
    #[arg(long)]
    keep: bool,
    /// Print the measurements in this file, which `squall defects --json` printed, and measure nothing.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "ranges", "seeds", "jobs", "keep"])]
    from: Option<PathBuf>,
    /// Print the table as Markdown, as in docs/defects.md.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print each measurement as one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
}

pub(super) fn defects(arguments: &DefectsArguments) -> Result<ExitCode, CliError> {
    let mut printer = Printer::new(arguments);
    if let Some(path) = &arguments.from {
        for measured in read_measured(path, &arguments.names)? {
            printer.print(&measured)?;
        }
        printer.finish()?;
        return Ok(status(printer.all_well));
    }
    let patches = read_patches(arguments)?;
    let options =
        Options { ranges: arguments.ranges, seeds: arguments.seeds, jobs: arguments.jobs, shrink_runs: RUNS_MAX };
    let builder = DefectBuilder::open(Path::new(BUILDS))?;
    for patch in &patches {
        let spinner = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let report_progress = |step: &str| spinner.set_message(format!("{}: {step}", patch.name));
        let result = defects::measure(&builder, patch, &options, Path::new(CORPUS), report_progress);
        spinner.finish_and_clear();
        let (measured, entry) = match result {
            Ok(measured) => measured,
            // The other defects are measured all the same.
            Err(error) => {
                eprintln!("error: {error}");
                printer.all_well = false;
                continue;
            }
        };
        printer.print(&measured)?;
        let is_kept = arguments.keep && measured.passes_without && measured.corpus_finds.is_none();
        if let Some(entry) = entry.filter(|_| is_kept) {
            let path = PathBuf::from(CORPUS).join(&patch.name).with_extension("json");
            entry.write(&path).map_err(|error| CliError::Create(path, error))?;
        }
    }
    printer.finish()?;
    Ok(status(printer.all_well))
}

/// Parses the name of a set of defects.
fn sets() -> impl TypedValueParser<Value = DefectSet> {
    let names = PossibleValuesParser::new(DefectSet::ALL.iter().map(|set| set.name()));
    names.map(|name| name.parse::<DefectSet>().expect("only names of sets are possible"))
}

/// Reads the patches that the arguments name.
fn read_patches(arguments: &DefectsArguments) -> Result<Vec<Patch>, CliError> {
    let mut patches = Vec::new();
    for name in &arguments.names {
        patches.push(Patch::read(&Path::new(PATCHES).join(name).with_extension("patch"))?);
    }
    if arguments.names.is_empty() {
        patches = Patch::read_all(Path::new(PATCHES))?;
        patches.retain(|patch| patch.set() == arguments.set);
    }
    for patch in &mut patches {
        patch.scenario = arguments.scenario.unwrap_or(patch.scenario);
    }
    Ok(patches)
}

/// Reads the measurements of the defects of these names, or of all, from the output of `squall defects --json`.
fn read_measured(path: &Path, names: &[String]) -> Result<Vec<Measured>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::ReadMeasured(path.to_owned(), error))?;
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let malformed = |cause| CliError::Measured { path: path.to_owned(), line: number, cause };
        all.push(Measured::from_json(line).map_err(malformed)?);
    }
    if let Some(missing) = names.iter().find(|name| all.iter().all(|measured| measured.name != **name)) {
        return Err(CliError::NotMeasured(path.to_owned(), missing.clone()));
    }
    all.retain(|measured| names.is_empty() || names.contains(&measured.name));
    Ok(all)
}

/// Prints measurements in the form that the arguments name.
struct Printer {
    form: Form,
    /// The measurements for the terminal, which are printed at the end.
    table: Table,
    remarks: Vec<String>,
    all_well: bool,
    is_begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Terminal,
    Markdown,
    Json,
}

impl Printer {
    fn new(arguments: &DefectsArguments) -> Self {
        let form = match (arguments.json, arguments.markdown) {
            (true, _) => Form::Json,
            (false, true) => Form::Markdown,
            (false, false) => Form::Terminal,
        };
        let columns = [
            ("defect", Align::Left),
            ("found by", Align::Left),
            ("median", Align::Right),
            ("faults", Align::Right),
            ("operations", Align::Right),
            ("s", Align::Right),
        ];
        Printer { form, table: Table::new(columns), remarks: Vec::new(), all_well: true, is_begun: false }
    }

    fn print(&mut self, measured: &Measured) -> io::Result<()> {
        self.all_well &= measured.is_well();
        let mut stdout = io::stdout();
        match self.form {
            Form::Json => {
                writeln!(stdout, "{}", serde_json::to_string(measured).expect("it is plain data"))?;
            }
            Form::Markdown => {
                if !self.is_begun {
                    writeln!(stdout, "{MARKDOWN_HEADING}")?;
                }
                writeln!(stdout, "{}", markdown_row(measured))?;
            }
            Form::Terminal => {
                let count =
                    |count: fn(Size) -> usize| measured.shrunk.map_or("–".to_owned(), |size| count(size).to_string());
                self.table.row([
                    measured.name.clone(),
                    measured.invariant.clone(),
                    median(measured),
                    count(|size| size.faults),
                    count(|size| size.operations),
                    measured.wall_s.to_string(),
                ]);
                if !remarks(measured).is_empty() {
                    self.remarks.push(format!("{}: {}", measured.name, remarks(measured).join("; ")));
                }
            }
        }
        self.is_begun = true;
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        if self.form != Form::Terminal {
            return Ok(());
        }
        let mut stdout = io::stdout();
        write!(stdout, "{}", self.table.render())?;
        for remark in &self.remarks {
            write!(stdout, "{}", wrap(remark, "  "))?;
        }
        writeln!(stdout, "verdict: {}", if self.all_well { "every defect was found" } else { "see the remarks" })
    }
}

/// The heading of the Markdown table.
const MARKDOWN_HEADING: &str = "| defect | known from | found by | seeds of each range | median | shrunk to | remarks |\n\
                                |---|---|---|---|---|---|---|";

/// Returns a measurement as a row of the Markdown table.
fn markdown_row(measured: &Measured) -> String {
    let scenario =
        if measured.scenario == Scenario::Storm.name() { String::new() } else { format!(" ({})", measured.scenario) };
    let or_more = || format!("> {}", measured.seeds_max);
    let seeds = measured.seeds_to_find.iter().map(|seeds| seeds.map_or_else(or_more, |seeds| seeds.to_string()));
    let shrunk = measured.shrunk.map_or(String::new(), |size| {
        let counts =
            [(size.faults, "fault"), (size.operations, "operation"), (size.clients, "client"), (size.hosts, "host")];
        counts.map(|(count, thing)| summary::of_count(count, thing)).join(", ")
    });
    let cells = [
        measured.name.clone(),
        measured.upstream.clone(),
        format!("{}{scenario}", measured.invariant),
        seeds.collect::<Vec<_>>().join(", "),
        median(measured),
        shrunk,
        remarks(measured).join("; "),
    ];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn median(measured: &Measured) -> String {
    match measured.median() {
        Some(median) => median.to_string(),
        None if measured.seeds_to_find.is_empty() => "–".to_owned(),
        None => format!("> {}", measured.seeds_max),
    }
}

/// Returns everything about a measurement that is not as it should be, and the situations that a deep defect needs.
fn remarks(measured: &Measured) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(situations) = &measured.needs {
        remarks.push(format!("needs {situations}"));
    }
    if !measured.found {
        remarks.push("not found everywhere".to_owned());
    }
    if measured.shrunk.is_some() && !measured.passes_without {
        remarks.push("the plan fails without the defect too".to_owned());
    }
    if measured.corpus_finds == Some(false) {
        remarks.push("its entry in seeds/ is stale".to_owned());
    }
    if measured.needs.is_none() && measured.shrunk.is_some_and(|size| !size.is_small()) {
        remarks.push(format!("more than {SHRUNK_FAULTS_MAX} faults or {SHRUNK_OPERATIONS_MAX} operations"));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        Measured {
            name: "streamer_stuck".into(),
            upstream: "Synapse #7255 | measured".into(),
            invariant: "stuck".into(),
            scenario: "storm".into(),
            needs: None,
            found: true,
            seeds_to_find: vec![Some(2), Some(1), Some(3)],
            seeds_max: 1_000,
            shrunk: Some(Size { faults: 1, operations: 2, clients: 0, hosts: 3 }),
            passes_without: true,
            corpus_finds: Some(true),
            build_s: 20,
            wall_s: 40,
        }
    }

    #[test]
    fn a_measurement_is_a_row_of_markdown() {
        let expected = "| streamer_stuck | Synapse #7255 \\| measured | stuck | 2, 1, 3 | 2 | 1 fault, 2 operations, 0 \
                        clients, 3 hosts |  |";
        assert_eq!(markdown_row(&measured()), expected);
        let columns = |row: &str| row.replace("\\|", "").matches('|').count();
        for line in MARKDOWN_HEADING.lines() {
            assert_eq!(columns(line), columns(expected));
        }
    }

    #[test]
    fn a_row_names_the_scenario_unless_it_is_the_storm_and_the_ranges_without_a_find() {
        let redis =
            Measured { scenario: "redis".into(), found: false, seeds_to_find: vec![None, Some(4), None], ..measured() };
        let row = markdown_row(&redis);
        assert!(row.contains("| stuck (redis) | > 1000, 4, > 1000 | > 1000 |"), "{row}");
        assert!(row.ends_with("| not found everywhere |"), "{row}");
    }

    #[test]
    fn a_remark_names_everything_that_is_not_as_it_should_be() {
        assert!(remarks(&measured()).is_empty());
        let large = Some(Size { faults: 6, operations: 2, clients: 0, hosts: 3 });
        let measured = Measured { shrunk: large, passes_without: false, corpus_finds: Some(false), ..measured() };
        let expected = [
            "the plan fails without the defect too",
            "its entry in seeds/ is stale",
            "more than 5 faults or 20 operations",
        ];
        assert_eq!(remarks(&measured), expected);
        let needs = Some("two races at once".into());
        let deep = Measured { needs, passes_without: true, corpus_finds: None, ..measured };
        assert_eq!(remarks(&deep), ["needs two races at once"], "its plan may be large");
    }
}
