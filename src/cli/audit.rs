//! `squall audit`: checks recordings of real replication traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::summary::of_count;
use super::table::{self, Align, Table, wrap};
use super::{CliError, status};
use crate::serve::{File, ServeError};
use squall_judge::audit::{Audit, Capture, Finding, Gap, Report, Tally, Writers};
use squall_protocol::{Dialect, InstanceName, StreamName, Token, rows};

/// Number of gaps that a summary lists if it is not verbose.
const GAPS_LISTED_MAX: usize = 5;

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// Recordings: of Redis, {"t": seconds, "ch": channel, "data": payload} on each line; of TCP, the lines that one end of
    /// a connection sent. Plain or packed by gzip.
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<PathBuf>,
    /// The version of Synapse whose grammar the payloads have: 1.163 or 1.19. Without it, the first payload that differs
    /// between the two decides.
    #[arg(long)]
    dialect: Option<Dialect>,
    #[command(flatten)]
    writers: WriterArguments,
    /// Print every writer, every gap and every finding, not only an example of each kind.
    #[arg(long)]
    verbose: bool,
    /// Print one JSON object for each recording, and nothing else.
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
}

/// The writers of the deployment's streams.
#[derive(Debug, Args)]
pub(super) struct WriterArguments {
    /// An instance that writes a stream. Repeat it for each writer of the stream; any other writer is a finding.
    #[arg(long = "writer", value_name = "STREAM=INSTANCE", value_parser = parse_writer)]
    writers: Vec<(StreamName, InstanceName)>,
    /// Squall's configuration file, from which the writers of all its streams are taken.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl WriterArguments {
    /// Returns the named writers of each stream.
    pub(super) fn by_stream(&self) -> Result<Writers, CliError> {
        let mut by_stream = Writers::new();
        if let Some(path) = &self.config {
            let config = File::load(path).map_err(ServeError::from)?.config;
            let writers = |stream: &&str| ((*stream).into(), config.writers_of(stream).into_iter().collect());
            by_stream.extend(rows::NAMES.iter().map(writers));
        }
        for (stream, writer) in self.writers.iter().cloned() {
            by_stream.entry(stream).or_default().insert(writer);
        }
        Ok(by_stream)
    }
}

/// Parses `STREAM=INSTANCE`.
fn parse_writer(text: &str) -> Result<(StreamName, InstanceName), String> {
    match text.split_once('=') {
        Some((stream, writer)) if !stream.is_empty() && !writer.is_empty() => Ok((stream.into(), writer.into())),
        _ => Err("write a stream's name, =, and an instance's name, such as typing=master".to_owned()),
    }
}

pub(super) fn audit(arguments: &AuditArguments) -> Result<ExitCode, CliError> {
    let writers = arguments.writers.by_stream()?;
    let mut stdout = std::io::stdout();
    let mut is_readable = true;
    let mut is_clean = true;
    for (index, path) in arguments.captures.iter().enumerate() {
        // A recording that cannot be read does not keep the others from being checked.
        let capture = match Capture::open(path) {
            Ok(capture) => capture,
            Err(error) => {
                let remedy = "Name a recording of Redis or of a TCP connection, plain or packed by gzip";
                eprintln!("error: cannot read {}: {error}. {remedy}", path.display());
                is_readable = false;
                continue;
            }
        };
        let audit = Audit::new(capture.transport(), arguments.dialect).with_writers(&writers);
        let report = Report::by(audit, capture);
        for error in &report.errors {
            eprintln!("error: {}: {error}", path.display());
        }
        is_readable &= report.errors.is_empty();
        is_clean &= report.findings.is_empty();
        if arguments.json {
            writeln!(stdout, "{}", report.to_json(&path.display().to_string()))?;
        } else {
            let separator = if index == 0 { "" } else { "\n" };
            write!(stdout, "{separator}{}", of_report(path, &report, arguments.verbose))?;
        }
    }
    Ok(if is_readable { status(is_clean) } else { ExitCode::from(2) })
}

/// Returns a report as text: what was read, what was checked, what was found, and the verdict.
fn of_report(path: &Path, report: &Report, verbose: bool) -> String {
    let mut title = format!("{}: {}, Synapse {}", path.display(), report.transport, report.dialect);
    if let Some(last) = report.last {
        let _ = write!(title, ", {last}");
    }
    let groups = report.groups();
    let kinds = groups.iter().map(|(fingerprint, group)| (&**fingerprint, group.count as u64, group.first));
    let summary = Summary {
        tally: &report.tally,
        checks: report.checks.iter().map(|(rule, checks)| (*rule, *checks)).collect(),
        gaps: report.gaps.iter().collect(),
        gap_count: report.gaps.len() as u64,
        gap_ms: report.gaps.iter().map(|gap| gap.until.ms_since(gap.since)).sum(),
        kinds: kinds.collect(),
        findings: if verbose { report.findings.iter().collect() } else { Vec::new() },
        verbose,
    };
    wrap(&printable(&title), "  ") + &summary.text()
}

/// The results of an audit, for a reader.
pub(super) struct Summary<'a> {
    pub tally: &'a Tally,
    /// Number of checks of each rule.
    pub checks: Vec<(&'static str, u64)>,
    /// The last gaps.
    pub gaps: Vec<&'a Gap>,
    /// Number of all gaps.
    pub gap_count: u64,
    /// Total length of all gaps, in milliseconds.
    pub gap_ms: u64,
    /// Fingerprint, number and first finding of each kind.
    pub kinds: Vec<(&'a str, u64, &'a Finding)>,
    /// Findings to list one by one. If there are none, one example of each kind is listed.
    pub findings: Vec<&'a Finding>,
    /// True if every writer and every gap is listed.
    pub verbose: bool,
}

impl Summary<'_> {
    /// Returns the summary on lines of at most 80 characters. The verdict is the last line.
    pub(super) fn text(&self) -> String {
        let found: u64 = self.kinds.iter().map(|(_, count, _)| count).sum();
        let mut text = self.of_payloads();
        text.push('\n');
        text.push_str(&self.of_checks());
        if found == 0 {
            text.push_str("\nverdict: no findings\n");
            return text;
        }
        text.push('\n');
        text.push_str(&self.of_findings());
        let _ = writeln!(text, "\nverdict: {} of {}", of_count(found, "finding"), of_count(self.kinds.len(), "kind"));
        text
    }

    /// Returns what was read: the commands, the streams and the gaps.
    fn of_payloads(&self) -> String {
        let tally = self.tally;
        let commands: Vec<String> = tally.commands.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut text = if commands.is_empty() {
            format!("{} of {} payloads parsed\n", tally.parsed, tally.payloads)
        } else {
            let title = format!("{} of {} payloads parsed", tally.parsed, tally.payloads);
            table::list(&title, commands.iter().map(String::as_str))
        };
        if !tally.streams.is_empty() {
            text.push('\n');
            text.push_str(&if self.verbose { self.of_writers() } else { self.of_streams() });
        }
        let unknown: Vec<String> =
            tally.unknown_streams().into_iter().map(|stream| printable(stream.as_str())).collect();
        if !unknown.is_empty() {
            text.push_str(&table::list("rows not parsed, of unknown streams", unknown.iter().map(String::as_str)));
        }
        if self.gap_count > 0 {
            text.push('\n');
            let listed = if self.verbose { self.gaps.len() } else { self.gaps.len().min(GAPS_LISTED_MAX) };
            for gap in &self.gaps[self.gaps.len() - listed..] {
                text.push_str(&wrap(&printable(&gap.to_string()), "  "));
            }
            let seconds = self.gap_ms as f64 / 1_000.0;
            let _ = writeln!(text, "{}, {seconds:.3} s in all", of_count(self.gap_count, "gap"));
        }
        text
    }

    fn of_streams(&self) -> String {
        let mut streams = Table::new([
            ("stream", Align::Left),
            ("writers", Align::Right),
            ("rows", Align::Right),
            ("positions", Align::Right),
            ("last token", Align::Right),
        ]);
        for (stream, writers) in &self.tally.streams {
            let last_token = writers.values().filter_map(|counts| counts.last_token).max();
            streams.row([
                printable(stream.as_str()),
                writers.len().to_string(),
                writers.values().map(|counts| counts.rows).sum::<u64>().to_string(),
                writers.values().map(|counts| counts.positions).sum::<u64>().to_string(),
                of_token(last_token),
            ]);
        }
        streams.render()
    }

    fn of_writers(&self) -> String {
        let mut rows = Table::new([
            ("stream", Align::Left),
            ("writer", Align::Left),
            ("rows", Align::Right),
            ("positions", Align::Right),
            ("last token", Align::Right),
        ]);
        for (stream, writers) in &self.tally.streams {
            for (writer, counts) in writers {
                rows.row([
                    printable(stream.as_str()),
                    printable(writer.as_str()),
                    counts.rows.to_string(),
                    counts.positions.to_string(),
                    of_token(counts.last_token),
                ]);
            }
        }
        rows.render()
    }

    /// Returns what was checked: each rule with its checks and findings.
    fn of_checks(&self) -> String {
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, count, first) in &self.kinds {
            *found.entry(first.violation.rule()).or_default() += count;
        }
        let mut rules = Table::new([("rule", Align::Left), ("checks", Align::Right), ("findings", Align::Right)]);
        for (rule, checks) in &self.checks {
            let found = found.get(rule).copied().unwrap_or_default();
            rules.row([(*rule).to_owned(), checks.to_string(), found.to_string()]);
        }
        rules.render()
    }

    /// Returns what was found: each kind with its number, then every finding or one example of each kind of each rule.
    fn of_findings(&self) -> String {
        let mut kinds = Table::new([("finding", Align::Left), ("times", Align::Right), ("first line", Align::Right)]);
        for (fingerprint, count, first) in &self.kinds {
            kinds.row([printable(fingerprint), count.to_string(), first.line.to_string()]);
        }
        let mut text = kinds.render();
        text.push('\n');
        if self.findings.is_empty() {
            // One example for all streams is enough.
            let mut explained = BTreeSet::new();
            for (_, _, first) in &self.kinds {
                if explained.insert((first.violation.rule(), first.violation.kind())) {
                    text.push_str(&of_finding(first));
                }
            }
        } else {
            for finding in &self.findings {
                text.push_str(&of_finding(finding));
            }
        }
        text
    }
}

fn of_finding(finding: &Finding) -> String {
    wrap(&printable(&format!("line {}: {}", finding.line, finding.violation)), "  ")
}

/// Returns a token, or "none".
pub(super) fn of_token(token: Option<Token>) -> String {
    token.map_or_else(|| "none".to_owned(), |token| token.to_string())
}

/// Replaces control characters, which could move the cursor of the reader's terminal or begin another line.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn text_of(path: &str, verbose: bool) -> String {
        let report = Report::of(Capture::open(Path::new(path)).unwrap(), None);
        of_report(Path::new(path), &report, verbose)
    }

    #[test]
    fn a_report_fits_80_columns_and_ends_with_the_verdict() {
        let redis = "tests/data/redis_traffic.jsonl.gz";
        let tcp = "tests/data/tcp_1.19.1.txt.gz";
        for (path, verdict) in [(redis, "verdict: 1735 findings of 25 kinds"), (tcp, "verdict: 3 findings of 1 kind")] {
            for verbose in [false, true] {
                let text = text_of(path, verbose);
                let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
                assert!(longest.chars().count() <= 80, "{longest}");
                assert_eq!(text.lines().last(), Some(verdict));
            }
        }
    }

    #[test]
    fn only_a_verbose_report_has_every_finding() {
        let lines = |verbose| {
            let text = text_of("tests/data/tcp_1.19.1.txt.gz", verbose);
            text.lines().filter(|line| line.starts_with("line ")).count()
        };
        assert_eq!(lines(false), 1);
        assert_eq!(lines(true), 3);
    }

    #[test]
    fn a_name_from_the_traffic_moves_no_cursor_and_begins_no_line() {
        let name = "n".repeat(200);
        let recording = format!("{{\"t\":1,\"ch\":\"h\",\"data\":\"POSITION a\\u001b[2J{name} b\\u009b2J 1 1\"}}\n");
        let report = Report::of(Capture::new(Cursor::new(recording)).unwrap(), None);
        for verbose in [false, true] {
            let text = of_report(Path::new("a\u{1b}.jsonl"), &report, verbose);
            assert!(text.contains("a\u{fffd}[2J") && text.contains("a\u{fffd}.jsonl"), "{text}");
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}
