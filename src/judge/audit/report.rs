//! What an audit of a recording came to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Audit, Away, Capture, CaptureError, Entry, Finding, Tally, Transport, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Dialect, StreamName};

/// A recording, judged.
#[derive(Debug)]
pub struct Report {
    /// How its payloads travelled.
    pub transport: Transport,
    /// The grammar they were read by.
    pub dialect: Dialect,
    /// When the last payload came after the first, if they say when they came.
    pub last: Option<Moment>,
    /// What there was, in numbers.
    pub tally: Tally,
    /// How often each rule could have been violated.
    pub checks: BTreeMap<&'static str, u64>,
    /// What was found, in the order of the lines.
    pub findings: Vec<Finding>,
    /// When nothing could be heard.
    pub away: Vec<Away>,
    /// What could not be read.
    pub errors: Vec<CaptureError>,
}

/// Findings of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: &'a Finding,
}

impl Report {
    /// Judges a recording to its end. Without a dialect, the first line that gives one away decides.
    pub fn of(capture: Capture, dialect: Option<Dialect>) -> Report {
        let audit = Audit::new(capture.transport(), dialect);
        Report::by(audit, capture)
    }

    /// The same, by an audit that may know more.
    pub fn by(mut audit: Audit, capture: Capture) -> Report {
        let transport = capture.transport();
        let (mut findings, mut away, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for recorded in capture {
            match recorded {
                Ok(recorded) => {
                    findings.extend(audit.take(&recorded));
                    if let Entry::Away(told) = recorded.entry {
                        away.push(told);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        findings.extend(audit.end());
        // What took time to be found stands where it began.
        findings.sort_by_key(|finding| finding.line);
        Report {
            transport,
            dialect: audit.dialect(),
            last: audit.last(),
            tally: audit.tally().clone(),
            checks: audit.judged().collect(),
            findings,
            away,
            errors,
        }
    }

    /// The findings by their fingerprints.
    pub fn groups(&self) -> BTreeMap<String, Group<'_>> {
        let mut groups = BTreeMap::new();
        for first in &self.findings {
            groups.entry(first.violation.fingerprint()).or_insert(Group { count: 0, first }).count += 1;
        }
        groups
    }

    /// The report as one line of JSON, about the recording called `file`.
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
            away: &self.away,
            violations: violations.collect(),
        };
        serde_json::to_string(&report).expect("a report is plain data")
    }
}

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
    away: &'a [Away],
    violations: Vec<Found<'a>>,
}

/// A finding as JSON.
#[derive(Debug, Serialize)]
pub struct Found<'a> {
    invariant: &'static str,
    fingerprint: String,
    line: u64,
    detail: &'a Violation,
    message: String,
}

impl<'a> From<&'a Finding> for Found<'a> {
    fn from(Finding { line, violation }: &'a Finding) -> Self {
        Found {
            invariant: violation.rule(),
            fingerprint: violation.fingerprint(),
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
        let told: Vec<_> = groups.iter().map(|(kind, group)| (&**kind, group.count, group.first.line)).collect();
        assert_eq!(told, [("payloads_readable/not_a_command", 2, 3), ("tokens_ascend/events/went_back", 1, 5)]);
    }

    #[test]
    fn the_json_says_what_there_was_and_what_was_found() {
        let json: Value = serde_json::from_str(&report(LINES).to_json("a.txt")).unwrap();
        assert_eq!((&json["file"], &json["payloads"], &json["parsed"]), (&json!("a.txt"), &json!(6), &json!(4)));
        assert_eq!(json["commands"], json!({ "POSITION": 2, "RDATA": 1, "SERVER": 1 }));
        assert_eq!(json["streams"]["events"]["a"], json!({ "rows": 0, "positions": 2, "last_token": 0 }));
        assert_eq!(json["unknown_streams"], json!(["groups"]));
        let went_back = &json["violations"][1];
        assert_eq!((&went_back["invariant"], &went_back["line"]), (&json!("tokens_ascend"), &json!(5)));
        assert_eq!(went_back["detail"]["from"], json!(1));
        assert_eq!(json["checks"].as_object().unwrap().len(), super::super::rules::NAMES.len());
    }
}
