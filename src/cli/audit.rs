//! `squall audit`: judge recordings of real replication traffic.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{CliError, status, summary};
use crate::judge::audit::{Audit, Capture, Finding, Report, Writers};
use crate::protocol::{Dialect, InstanceName, StreamName};
use crate::serve::{File, ServeError};
use crate::streams;

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// Recordings: of Redis, {"t": seconds, "ch": channel, "data": payload} on each line; of TCP, the lines that one end of
    /// a connection sent. Plain or packed by gzip.
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<PathBuf>,
    /// Whose grammar the payloads have: 1.163 or 1.19. Otherwise the first line that tells decides.
    #[arg(long)]
    dialect: Option<Dialect>,
    #[command(flatten)]
    writers: WriterArguments,
    /// Print one JSON object for each recording, and nothing else.
    #[arg(long)]
    json: bool,
}

/// What is known of the deployment.
#[derive(Debug, Args)]
pub(super) struct WriterArguments {
    /// An instance that writes a stream; for a stream that several write, once for each. Whoever else writes it is a
    /// finding.
    #[arg(long = "writer", value_name = "STREAM=INSTANCE", value_parser = writer)]
    writers: Vec<(StreamName, InstanceName)>,
    /// The same for all of Squall's streams, from the file that its instances are configured by.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl WriterArguments {
    pub(super) fn by_stream(&self) -> Result<Writers, CliError> {
        let mut by_stream = Writers::new();
        if let Some(path) = &self.config {
            let config = File::load(path).map_err(ServeError::from)?.config;
            let writers = |stream: &&str| ((*stream).into(), config.writers_of(stream).into_iter().collect());
            by_stream.extend(streams::NAMES.iter().map(writers));
        }
        for (stream, writer) in self.writers.iter().cloned() {
            by_stream.entry(stream).or_default().insert(writer);
        }
        Ok(by_stream)
    }
}

fn writer(text: &str) -> Result<(StreamName, InstanceName), String> {
    match text.split_once('=') {
        Some((stream, writer)) if !stream.is_empty() && !writer.is_empty() => Ok((stream.into(), writer.into())),
        _ => Err("write a stream's name, =, and an instance's name, such as typing=master".to_owned()),
    }
}

pub(super) fn audit(arguments: &AuditArguments) -> Result<ExitCode, CliError> {
    let writers = arguments.writers.by_stream()?;
    let mut stdout = std::io::stdout();
    let (mut is_readable, mut is_clean) = (true, true);
    for path in &arguments.captures {
        // One that cannot be read keeps no other from being judged.
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
            write!(stdout, "{}", in_words(path, &report))?;
        }
    }
    Ok(if is_readable { status(is_clean) } else { ExitCode::from(2) })
}

/// The report for a reader: what there was, who said it, and what was found.
fn in_words(path: &Path, report: &Report) -> String {
    let mut text = String::new();
    let tally = &report.tally;
    let _ = write!(text, "{}: {}, as of Synapse {}", path.display(), report.transport, report.dialect);
    if let Some(last) = report.last {
        let _ = write!(text, ", {last}");
    }
    let _ =
        writeln!(text, "\n{} of {} payloads parsed: {}", tally.parsed, tally.payloads, summary::tally(&tally.commands));

    let mut rows = vec![["stream", "writer", "rows", "positions", "last token"].map(str::to_owned)];
    for (stream, writers) in &tally.streams {
        for (writer, said) in writers {
            let last_token = said.last_token.map_or_else(|| "none".to_owned(), |token| token.to_string());
            let (rows_said, positions) = (said.rows.to_string(), said.positions.to_string());
            rows.push([stream.to_string(), writer.to_string(), rows_said, positions, last_token]);
        }
    }
    text.push_str(&table(&rows, [false, false, true, true, true]));
    let unknown: Vec<String> = tally.unknown_streams().into_iter().map(ToString::to_string).collect();
    if !unknown.is_empty() {
        let _ = writeln!(text, "not streams of Squall, their rows are not looked into: {}", unknown.join(", "));
    }
    for away in &report.away {
        let _ = writeln!(text, "{away}");
    }
    let _ = writeln!(text, "checks: {}", summary::tally(&report.checks));

    let groups = report.groups();
    if groups.is_empty() {
        let _ = writeln!(text, "no findings\n");
        return text;
    }
    let kinds = groups.iter().map(|(fingerprint, group)| (&**fingerprint, group.count as u64, group.first));
    text.push_str(&findings(kinds));
    text.push('\n');
    text
}

/// Findings by their kinds, each with its number and the first of them, and how many there are.
pub(super) fn findings<'a>(kinds: impl Iterator<Item = (&'a str, u64, &'a Finding)>) -> String {
    let mut rows = vec![["finding", "times", "first on line", "which is"].map(str::to_owned)];
    let mut sum = 0;
    for (fingerprint, count, first) in kinds {
        sum += count;
        rows.push([fingerprint.to_owned(), count.to_string(), first.line.to_string(), first.violation.to_string()]);
    }
    let mut text = table(&rows, [false, true, true, false]);
    let _ = writeln!(text, "{sum} findings of {} kinds", rows.len() - 1);
    text
}

/// Columns, two spaces apart, each as wide as what is in it; those that hold numbers end at their right.
pub(super) fn table<const N: usize>(rows: &[[String; N]], is_number: [bool; N]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if is_number[column] { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// What was heard may be anything, and must not move the cursor of whoever reads it, or begin another line.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_moves_no_cursor_and_begins_no_line() {
        let rows = [["a\u{1b}[2J", "b\nc\u{9b}2J"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, [false, false]), "a\u{fffd}[2J  b\u{fffd}c\u{fffd}2J\n");
    }

    #[test]
    fn numbers_end_at_the_right_of_their_column() {
        let rows = [["stream", "rows"], ["typing", "7"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, [false, true]), "stream  rows\ntyping     7\n");
    }
}
