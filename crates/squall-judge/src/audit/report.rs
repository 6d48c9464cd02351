//! The report on one recording.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use strum::IntoEnumIterator;

use super::audit::Audit;
use super::bounds::Exceeded;
use super::capture::{Capture, CaptureError, Entry};
use super::class::Class;
use super::gaps::{Gap, Gaps};
use super::payload::Transport;
use super::rules::{Finding, Violation};
use super::sample::Sample;
use super::tally::Tally;
use crate::observation::SimTime;
use squall_protocol::{Dialect, StreamName};

/// Number of findings of one kind and class, and of unreadable lines of one kind, that a report of a recording holds where
/// not all are asked for.
pub const KEPT_OF_KIND_MAX: u64 = 20;

/// The findings in a recording, and counts of its payloads.
#[derive(Debug)]
pub struct Report {
    /// The way its payloads travelled.
    pub transport: Transport,
    /// The grammar they were parsed by.
    pub dialect: Dialect,
    /// The time from the first line to the last, if the recording has times.
    pub last: Option<SimTime>,
    /// Counts of the payloads.
    pub tally: Tally,
    /// Number of times that each rule could have been violated.
    pub checks: BTreeMap<&'static str, u64>,
    /// The findings that were kept, in the order of their lines.
    pub findings: Vec<Finding>,
    /// Number of the other findings, by class and kind.
    pub findings_left_out: BTreeMap<(Class, &'static str, &'static str), u64>,
    /// All findings, by class and fingerprint.
    grouped: BTreeMap<(Class, String), Grouped>,
    /// Number of findings that the operator left out.
    pub ignored: u64,
    /// The bounds that the traffic exceeded: not all of it was judged.
    pub exceeded: Vec<Exceeded>,
    /// The times in which payloads may have been missed.
    pub gaps: Gaps,
    /// The lines that could not be read, as far as they were kept.
    pub errors: Vec<CaptureError>,
    /// Number of the other lines that could not be read, by kind: `too long`, for example.
    pub errors_left_out: BTreeMap<&'static str, u64>,
}

/// Findings of one class and fingerprint.
#[derive(Debug)]
struct Grouped {
    count: usize,
    /// The one with the first line.
    first: Finding,
}

/// Findings of one fingerprint, or of one class and fingerprint.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Their number.
    pub count: usize,
    /// The first of them.
    pub first: &'a Finding,
}

impl Report {
    /// Judges a recording, and keeps every finding. Without a dialect, the first payload that has one decides.
    pub fn of(capture: Capture, dialect: Option<Dialect>) -> Report {
        let audit = Audit::new(capture.transport(), dialect);
        Report::by(audit, capture)
    }

    /// Judges a recording by an audit that is set up already, and keeps every finding. They may need many times the memory
    /// of the recording.
    pub fn by(audit: Audit, capture: Capture) -> Report {
        Report::keeping(audit, capture, u64::MAX)
    }

    /// Judges a recording, and keeps so many findings of each class and kind, and so many unreadable lines of each kind. All
    /// are counted.
    pub fn keeping(mut audit: Audit, capture: Capture, kept_max: u64) -> Report {
        let transport = capture.transport();
        let mut findings = Found::new(kept_max);
        let mut errors = Sample::new(kept_max);
        let mut gaps = Gaps::default();
        for recorded in capture {
            match recorded {
                Ok(recorded) => {
                    findings.add(audit.check_line(&recorded));
                    if let Entry::Gap(gap) = recorded.entry {
                        gaps.add(gap);
                    }
                }
                Err(error) => errors.add(error.kind(), error),
            }
        }
        findings.add(audit.end());
        let Found { sample, grouped } = findings;
        let (mut findings, findings_left_out) = sample.into_parts();
        // A finding that took time stands where it began.
        findings.sort_by_key(|finding| finding.line);
        let (errors, errors_left_out) = errors.into_parts();
        Report {
            transport,
            dialect: audit.dialect(),
            last: audit.last(),
            tally: audit.tally().clone(),
            checks: audit.judged().collect(),
            findings,
            findings_left_out,
            grouped,
            ignored: audit.ignored(),
            exceeded: audit.exceeded(),
            gaps,
            errors,
            errors_left_out,
        }
    }

    /// Groups all findings by their fingerprints.
    pub fn groups(&self) -> BTreeMap<String, Group<'_>> {
        let mut groups: BTreeMap<String, Group<'_>> = BTreeMap::new();
        for ((_, fingerprint), Grouped { count, first }) in &self.grouped {
            let group = groups.entry(fingerprint.clone()).or_insert(Group { count: 0, first });
            group.count += count;
            if first.line < group.first.line {
                group.first = first;
            }
        }
        groups
    }

    /// Groups all findings by their classes and fingerprints.
    pub fn groups_by_class(&self) -> BTreeMap<(Class, String), Group<'_>> {
        self.grouped
            .iter()
            .map(|(key, Grouped { count, first })| (key.clone(), Group { count: *count, first }))
            .collect()
    }

    /// Returns the number of all lines that could not be read.
    pub fn malformed(&self) -> u64 {
        self.errors.len() as u64 + self.errors_left_out.values().sum::<u64>()
    }

    /// Returns the number of all findings of each class.
    fn classes(&self) -> BTreeMap<Class, usize> {
        let mut classes: BTreeMap<_, _> = Class::iter().map(|class| (class, 0)).collect();
        for ((class, _), Grouped { count, .. }) in &self.grouped {
            *classes.entry(*class).or_default() += count;
        }
        classes
    }

    /// Formats the report on the recording called `file` as one line of JSON.
    pub fn to_json(&self, file: &str) -> String {
        let violations = self.findings.iter().map(FindingJson::from);
        let report = Json {
            file,
            transport: self.transport,
            dialect: self.dialect.to_string(),
            tally: &self.tally,
            malformed: self.malformed(),
            unknown_streams: self.tally.unknown_streams(),
            checks: &self.checks,
            away: &self.gaps.last,
            away_times: self.gaps.count,
            classes: self.classes(),
            findings: self.groups().into_iter().map(|(fingerprint, group)| (fingerprint, group.count)).collect(),
            ignored: self.ignored,
            exceeded: &self.exceeded,
            violations: violations.collect(),
        };
        serde_json::to_string(&report).expect("a report is plain data")
    }
}

/// The findings so far.
#[derive(Debug)]
struct Found {
    sample: Sample<(Class, &'static str, &'static str), Finding>,
    grouped: BTreeMap<(Class, String), Grouped>,
}

impl Found {
    fn new(kept_max: u64) -> Self {
        Found { sample: Sample::new(kept_max), grouped: BTreeMap::new() }
    }

    fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            let Finding { line, violation } = &finding;
            let class = violation.class();
            let new = || Grouped { count: 0, first: finding.clone() };
            let grouped = self.grouped.entry((class, violation.fingerprint())).or_insert_with(new);
            grouped.count += 1;
            if *line < grouped.first.line {
                grouped.first = finding.clone();
            }
            self.sample.add((class, violation.rule(), violation.kind()), finding);
        }
    }
}

/// A report, in its JSON form.
#[derive(Serialize)]
struct Json<'a> {
    file: &'a str,
    transport: Transport,
    dialect: String,
    #[serde(flatten)]
    tally: &'a Tally,
    malformed: u64,
    unknown_streams: Vec<&'a StreamName>,
    checks: &'a BTreeMap<&'static str, u64>,
    away: &'a VecDeque<Gap>,
    away_times: u64,
    classes: BTreeMap<Class, usize>,
    findings: BTreeMap<String, usize>,
    ignored: u64,
    exceeded: &'a [Exceeded],
    violations: Vec<FindingJson<'a>>,
}

/// A finding, in its JSON form.
#[derive(Debug, Serialize)]
pub struct FindingJson<'a> {
    invariant: &'static str,
    fingerprint: String,
    class: Class,
    line: u64,
    detail: &'a Violation,
    message: String,
}

impl<'a> From<&'a Finding> for FindingJson<'a> {
    fn from(Finding { line, violation }: &'a Finding) -> Self {
        FindingJson {
            invariant: violation.rule(),
            fingerprint: violation.fingerprint(),
            class: violation.class(),
            line: *line,
            detail: violation,
            message: violation.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use serde_json::{Value, json};

    use super::*;

    fn report(lines: &str) -> Report {
        Report::of(Capture::new(Cursor::new(lines.to_owned())).unwrap(), None)
    }

    const LINES: &str =
        "SERVER h\nPOSITION events a 1 1\nNOSUCH\nRDATA groups a 2 [1]\nPOSITION events a 0 0\nNOSUCH\n";

    #[test]
    fn findings_of_one_kind_are_grouped() {
        let report = report(LINES);
        let groups = report.groups();
        let grouped: Vec<_> = groups.iter().map(|(kind, group)| (&**kind, group.count, group.first.line)).collect();
        assert_eq!(grouped, [("payloads_readable/not_a_command", 2, 3), ("tokens_ascend/events/went_back", 1, 5)]);
    }

    #[test]
    fn the_json_has_the_counts_and_the_findings() {
        let json: Value = serde_json::from_str(&report(LINES).to_json("a.txt")).unwrap();
        assert_eq!((&json["file"], &json["payloads"], &json["parsed"]), (&json!("a.txt"), &json!(6), &json!(4)));
        assert_eq!(json["commands"], json!({ "POSITION": 2, "RDATA": 1, "SERVER": 1 }));
        assert_eq!(
            json["streams"]["events"]["a"],
            json!({ "rows": 0, "positions": 2, "last_token": 0, "unsent": 0, "last_unsent": [] })
        );
        assert_eq!((&json["classes"], &json["ignored"]), (&json!({ "loss": 3, "load": 0, "habit": 0 }), &json!(0)));
        assert_eq!(json["unknown_streams"], json!(["groups"]));
        let counts = json!({ "payloads_readable/not_a_command": 2, "tokens_ascend/events/went_back": 1 });
        assert_eq!((&json["findings"], &json["exceeded"]), (&counts, &json!([])));
        let went_back = &json["violations"][1];
        assert_eq!((&went_back["invariant"], &went_back["line"]), (&json!("tokens_ascend"), &json!(5)));
        assert_eq!((&went_back["detail"]["from"], &went_back["class"]), (&json!(1), &json!("loss")));
        assert_eq!(json["checks"].as_object().unwrap().len(), crate::audit::rules::NAMES.len());
    }

    #[test]
    fn the_first_findings_and_unreadable_lines_of_each_kind_are_kept_and_all_are_counted() {
        let mut lines = String::from("{\"t\":1,\"ch\":\"h\",\"data\":\"PING 1\"}\n");
        for number in 1..=100 {
            for stream in ["events", "caches"] {
                let position = format!("POSITION {stream} a {0} {0}", 9_000 - 500 * number);
                lines += &format!("{{\"t\":1,\"ch\":\"h\",\"data\":\"{position}\"}}\nnonsense\n");
            }
        }
        let capture = Capture::new(Cursor::new(lines)).unwrap();
        let report = Report::keeping(Audit::new(Transport::Redis, None), capture, KEPT_OF_KIND_MAX);
        assert_eq!((report.findings.len(), report.errors.len(), report.malformed()), (20, 20, 200));
        let left_out = BTreeMap::from([((Class::Loss, "tokens_ascend", "went_back"), 178)]);
        assert_eq!((&report.findings_left_out, report.errors_left_out.values().sum()), (&left_out, 180));
        let json: Value = serde_json::from_str(&report.to_json("a")).unwrap();
        let counts = json!({ "tokens_ascend/caches/went_back": 99, "tokens_ascend/events/went_back": 99 });
        assert_eq!(
            (&json["findings"], &json["classes"]["loss"], &json["malformed"]),
            (&counts, &json!(198), &json!(200))
        );
        assert_eq!(json["violations"].as_array().unwrap().len(), 20);
    }
}
