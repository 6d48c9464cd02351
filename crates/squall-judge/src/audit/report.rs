//! The report on one recording.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::IntoEnumIterator;

use super::audit::Audit;
use super::capture::{Capture, CaptureError, Entry, Gap};
use super::class::Class;
use super::payload::Transport;
use super::rules::{Finding, Violation};
use super::tally::Tally;
use crate::observation::SimTime;
use squall_protocol::{Dialect, StreamName};

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
    /// The findings, in the order of their lines.
    pub findings: Vec<Finding>,
    /// Number of findings that were left out.
    pub ignored: u64,
    /// The times in which payloads may have been missed.
    pub gaps: Vec<Gap>,
    /// The lines that could not be read.
    pub errors: Vec<CaptureError>,
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
    /// Judges a recording. Without a dialect, the first payload that has one decides.
    pub fn of(capture: Capture, dialect: Option<Dialect>) -> Report {
        let audit = Audit::new(capture.transport(), dialect);
        Report::by(audit, capture)
    }

    /// Judges a recording by an audit that is set up already.
    pub fn by(mut audit: Audit, capture: Capture) -> Report {
        let transport = capture.transport();
        let mut findings = Vec::new();
        let mut gaps = Vec::new();
        let mut errors = Vec::new();
        for recorded in capture {
            match recorded {
                Ok(recorded) => {
                    findings.extend(audit.check_line(&recorded));
                    if let Entry::Gap(gap) = recorded.entry {
                        gaps.push(gap);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        findings.extend(audit.end());
        // A finding that took time stands where it began.
        findings.sort_by_key(|finding| finding.line);
        Report {
            transport,
            dialect: audit.dialect(),
            last: audit.last(),
            tally: audit.tally().clone(),
            checks: audit.judged().collect(),
            findings,
            ignored: audit.ignored(),
            gaps,
            errors,
        }
    }

    /// Groups the findings by their fingerprints.
    pub fn groups(&self) -> BTreeMap<String, Group<'_>> {
        self.grouped(Violation::fingerprint)
    }

    /// Groups the findings by their classes and fingerprints.
    pub fn groups_by_class(&self) -> BTreeMap<(Class, String), Group<'_>> {
        self.grouped(|violation| (violation.class(), violation.fingerprint()))
    }

    fn grouped<K: Ord>(&self, key: impl Fn(&Violation) -> K) -> BTreeMap<K, Group<'_>> {
        let mut groups = BTreeMap::new();
        for first in &self.findings {
            groups.entry(key(&first.violation)).or_insert(Group { count: 0, first }).count += 1;
        }
        groups
    }

    /// Returns the number of findings of each class.
    fn classes(&self) -> BTreeMap<Class, usize> {
        let mut classes: BTreeMap<_, _> = Class::iter().map(|class| (class, 0)).collect();
        for finding in &self.findings {
            *classes.entry(finding.violation.class()).or_default() += 1;
        }
        classes
    }

    /// Formats the report on the recording called `file` as one line of JSON.
    pub fn to_json(&self, file: &str) -> String {
        let violations = self.findings.iter().map(Found::from);
        let report = Json {
            file,
            transport: self.transport,
            dialect: self.dialect.to_string(),
            tally: &self.tally,
            malformed: self.errors.len(),
            unknown_streams: self.tally.unknown_streams(),
            checks: &self.checks,
            away: &self.gaps,
            classes: self.classes(),
            ignored: self.ignored,
            violations: violations.collect(),
        };
        serde_json::to_string(&report).expect("a report is plain data")
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
    malformed: usize,
    unknown_streams: Vec<&'a StreamName>,
    checks: &'a BTreeMap<&'static str, u64>,
    away: &'a [Gap],
    classes: BTreeMap<Class, usize>,
    ignored: u64,
    violations: Vec<Found<'a>>,
}

/// A finding, in its JSON form.
#[derive(Debug, Serialize)]
pub struct Found<'a> {
    invariant: &'static str,
    fingerprint: String,
    class: Class,
    line: u64,
    detail: &'a Violation,
    message: String,
}

impl<'a> From<&'a Finding> for Found<'a> {
    fn from(Finding { line, violation }: &'a Finding) -> Self {
        Found {
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
        let went_back = &json["violations"][1];
        assert_eq!((&went_back["invariant"], &went_back["line"]), (&json!("tokens_ascend"), &json!(5)));
        assert_eq!((&went_back["detail"]["from"], &went_back["class"]), (&json!(1), &json!("loss")));
        assert_eq!(json["checks"].as_object().unwrap().len(), crate::audit::rules::NAMES.len());
    }
}
