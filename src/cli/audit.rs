//! `squall audit`: checks recordings of real replication traffic.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::findings::{FindingArguments, KindFound, Summary, printable};
use super::table::wrap;
use super::writers::WriterArguments;
use super::{CliError, status};
use squall_judge::audit::report::KEPT_OF_KIND_MAX;
use squall_judge::audit::{Audit, Capture, Report};
use squall_protocol::Dialect;

/// The result for a recording without a payload.
const NOTHING: &str = "there is no payload in it, so nothing was checked";

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
    #[command(flatten)]
    findings: FindingArguments,
    /// Print every writer, every gap and 20 findings of each kind, not only an example of each.
    #[arg(long)]
    verbose: bool,
    /// Print every finding and every line that cannot be read, not only 20 of each kind. All of them are held in memory.
    #[arg(long)]
    all: bool,
    /// Print one JSON object for each recording, and nothing else.
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
}

impl AuditArguments {
    /// Returns the number of findings and of unreadable lines of each kind that are printed.
    fn kept_max(&self) -> u64 {
        if self.all { u64::MAX } else { KEPT_OF_KIND_MAX }
    }
}

pub(super) fn audit(arguments: &AuditArguments) -> Result<ExitCode, CliError> {
    let synapse = arguments.writers.synapse()?;
    let writers = arguments.writers.by_stream(synapse.as_ref())?;
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
        let audit = Audit::new(capture.transport(), arguments.dialect)
            .with_writers(&writers)
            .ignoring(arguments.findings.ignored());
        let report = Report::keeping(audit, capture, arguments.kept_max());
        for error in &report.errors {
            eprintln!("error: {}: {error}", path.display());
        }
        for (kind, count) in &report.errors_left_out {
            eprintln!("error: {}: {count} more lines are {kind}. --all prints each", path.display());
        }
        let is_empty = report.tally.payloads == 0;
        if is_empty {
            eprintln!("error: {}: {NOTHING}. Name a recording with traffic in it", path.display());
        }
        is_readable &= report.errors.is_empty() && !is_empty;
        is_clean &= !report.groups_by_class().keys().any(|(class, _)| arguments.findings.counts(*class));
        if arguments.json {
            writeln!(stdout, "{}", report.to_json(&path.display().to_string()))?;
        } else {
            let separator = if index == 0 { "" } else { "\n" };
            write!(stdout, "{separator}{}", of_report(path, &report, arguments))?;
        }
    }
    Ok(if is_readable { status(is_clean) } else { ExitCode::from(2) })
}

/// Returns a report as text: what was read, what was checked, what was found, and the verdict.
fn of_report(path: &Path, report: &Report, arguments: &AuditArguments) -> String {
    let mut title = format!("{}: {}, Synapse {}", path.display(), report.transport, report.dialect);
    if let Some(last) = report.last {
        let _ = write!(title, ", {last}");
    }
    let groups = report.groups_by_class();
    let found = groups.iter().map(|((class, fingerprint), group)| KindFound {
        class: *class,
        fingerprint,
        count: group.count as u64,
        first: group.first,
    });
    let (kinds, habits) = found.partition(|kind| arguments.findings.counts(kind.class));
    let verbose = arguments.verbose;
    let summary = Summary {
        tally: &report.tally,
        nothing: (report.tally.payloads == 0).then_some(NOTHING),
        checks: report.checks.iter().map(|(rule, checks)| (*rule, *checks)).collect(),
        gaps: &report.gaps,
        kinds,
        habits,
        ignored: report.ignored,
        findings: if verbose || arguments.all { &report.findings } else { &[] },
        left_out: &report.findings_left_out,
        exceeded: report.exceeded.clone(),
        verbose,
    };
    wrap(&printable(&title), "  ") + &summary.text()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Returns the arguments of `squall audit` on one recording.
    fn arguments(options: &[&str]) -> AuditArguments {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: AuditArguments,
        }
        let line: Line = clap::Parser::parse_from([&["audit", "recording"], options].concat());
        line.arguments
    }

    fn text_of(path: &str, options: &[&str]) -> String {
        let arguments = arguments(options);
        let capture = Capture::open(Path::new(path)).unwrap();
        let audit = Audit::new(capture.transport(), None);
        let report = Report::keeping(audit, capture, arguments.kept_max());
        of_report(Path::new(path), &report, &arguments)
    }

    #[test]
    fn a_report_fits_80_columns_and_ends_with_the_verdict() {
        let redis = "tests/data/redis_traffic.jsonl.gz";
        let tcp = "tests/data/tcp_1.19.1.txt.gz";
        let lenient: &[&str] = &[];
        let cases = [
            (redis, lenient, "verdict: 1 loss of 1 kind; 1759 habits"),
            (redis, &["--verbose"], "verdict: 1 loss of 1 kind; 1759 habits"),
            (redis, &["--all"], "verdict: 1 loss of 1 kind; 1759 habits"),
            (redis, &["--strict"], "verdict: 1760 findings of 26 kinds: 1 loss, 1759 habits"),
            (tcp, lenient, "verdict: no findings; 3 habits"),
            (tcp, &["--verbose"], "verdict: no findings; 3 habits"),
            (tcp, &["--strict"], "verdict: 3 habits of 1 kind"),
        ];
        for (path, options, verdict) in cases {
            let text = text_of(path, options);
            let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(longest.chars().count() <= 80, "{longest}");
            assert_eq!(text.lines().last(), Some(verdict));
        }
    }

    #[test]
    fn a_habit_has_one_line() {
        let text = text_of("tests/data/redis_traffic.jsonl.gz", &[]);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("replicate_answered_once/")).collect();
        let [line] = lines[..] else { panic!("{text}") };
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["replicate_answered_once/twice", "33", "19", "3559"]);
    }

    #[test]
    fn only_a_verbose_report_has_every_finding() {
        let lines = |options: &[&str]| {
            let text = text_of("tests/data/tcp_1.19.1.txt.gz", options);
            text.lines().filter(|line| line.starts_with("line ")).count()
        };
        assert_eq!(lines(&[]), 0, "they are habits");
        assert_eq!(lines(&["--strict"]), 1);
        assert_eq!(lines(&["--verbose"]), 3);
    }

    #[test]
    fn a_verbose_report_has_twenty_findings_of_a_kind_and_counts_the_others() {
        let text = text_of("tests/data/redis_traffic.jsonl.gz", &["--verbose"]);
        let echoes = text.lines().filter(|line| line.contains("covers only rows")).count();
        assert_eq!(echoes, KEPT_OF_KIND_MAX as usize);
        let left_out = text.lines().find(|line| line.ends_with("more of announcements_are_own/of_others (habit)"));
        assert!(left_out.is_some_and(|line| line.starts_with("… and ")), "{text}");
        let every = text_of("tests/data/redis_traffic.jsonl.gz", &["--all"]);
        assert_eq!(every.lines().filter(|line| line.starts_with("line ")).count(), 1_760);
        assert!(!every.contains("… and "), "{every}");
    }

    #[test]
    fn a_name_from_the_traffic_moves_no_cursor_and_begins_no_line() {
        let name = "n".repeat(150);
        let recording = format!("{{\"t\":1,\"ch\":\"h\",\"data\":\"POSITION a\\u001b[2J{name} b\\u009b2J 1 1\"}}\n");
        let report = Report::of(Capture::new(Cursor::new(recording)).unwrap(), None);
        let lenient: &[&str] = &[];
        for options in [lenient, &["--verbose"]] {
            let text = of_report(Path::new("a\u{1b}.jsonl"), &report, &arguments(options));
            assert!(text.contains("a\\u{1b}[2J") && text.contains("a\\u{1b}.jsonl"), "{text}");
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}
