//! The output of `squall follow`, for a terminal, for a file and for a program.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::FollowArguments;
use super::live::Live;
use crate::cli::findings::{KindFound, Summary, printable};
use crate::cli::table::wrap;
use crate::follow::{Event, Follower, HEARD_WITHIN_MS, Unheard};
use crate::transport::redis::BrokerError;
use squall_env::Address;
use squall_judge::audit::report::FindingJson;
use squall_judge::audit::{Class, Finding, Gap};
use squall_judge::observation::SimTime;

/// The reasons for which a broker closes a connection.
const CLOSED: &str = ", which stopped, or had more waiting for this subscriber than its client-output-buffer-limit";

/// Writes events and the summary to standard output.
pub(super) struct Output<'a> {
    mode: Mode,
    arguments: &'a FollowArguments,
    server_name: &'a str,
    broker: Address,
    /// True while the connection is lost: the reason was told.
    is_disconnected: bool,
    closed: Rc<Notify>,
}

/// The form of the output.
enum Mode {
    /// A table that is redrawn, with a line for each event above it.
    Table(Live),
    /// A line for each event.
    Lines,
    /// A JSON object for each event.
    Json,
}

impl<'a> Output<'a> {
    pub(super) fn new(arguments: &'a FollowArguments, server_name: &'a str, broker: &Address) -> Self {
        let mode = match (arguments.json, io::stdout().is_terminal()) {
            (true, _) => Mode::Json,
            (false, false) => Mode::Lines,
            (false, true) => Mode::Table(Live::new()),
        };
        Output { mode, arguments, server_name, broker: broker.clone(), is_disconnected: false, closed: Rc::default() }
    }

    /// Returns a notification for the end of the reader: standard output is closed.
    pub(super) fn closed(&self) -> Rc<Notify> {
        Rc::clone(&self.closed)
    }

    /// Writes an event.
    pub(super) fn event(&mut self, now: SimTime, event: Event<'_>, follower: &Follower) {
        if let Mode::Json = self.mode {
            return self.write_json(follower.seconds(now), self.json_of(event));
        }
        let line = self.text_of(event).map(|text| format!("{now} {text}"));
        let title = self.title(now);
        let counts_habits = self.arguments.findings.counts(Class::Habit);
        let written = match (&mut self.mode, line) {
            (Mode::Table(live), Some(line)) => live.print(&line),
            (Mode::Table(live), None) if matches!(event, Event::Tick) => {
                live.draw(&title, now, follower, counts_habits)
            }
            (_, Some(line)) => return self.write(&line),
            (_, None) => return,
        };
        self.check(&written);
    }

    /// Removes the live table.
    pub(super) fn clear(&mut self) {
        if let Mode::Table(live) = &mut self.mode {
            let written = live.clear();
            self.check(&written);
        }
    }

    /// Writes the summary.
    pub(super) fn summary(&mut self, follower: &Follower) {
        self.clear();
        if let Mode::Json = self.mode {
            self.write_json(follower.seconds(follower.now()), json_summary(follower));
        } else {
            self.write(self.text_summary(follower).trim_end());
        }
    }

    fn text_summary(&self, follower: &Follower) -> String {
        let gaps = follower.gaps();
        let found = follower.found().map(|(fingerprint, class, found)| KindFound {
            class,
            fingerprint,
            count: found.count,
            first: &found.first,
        });
        let (mut kinds, habits): (Vec<_>, _) = found.partition(|kind| self.arguments.findings.counts(kind.class));
        kinds.sort_by_key(|kind| kind.class);
        let summary = Summary {
            tally: follower.tally(),
            nothing: (!follower.has_heard()).then_some("nothing was heard"),
            checks: follower.judged().collect(),
            gaps,
            kinds,
            habits,
            ignored: follower.ignored(),
            findings: &[],
            left_out: &BTreeMap::new(),
            exceeded: follower.exceeded(),
            verbose: self.arguments.verbose,
        };
        wrap(&self.title(follower.now()), "  ") + &summary.text()
    }

    /// Returns the name of the deployment, its broker and the time.
    fn title(&self, now: SimTime) -> String {
        printable(&format!("{} on the broker at {}, {now}", self.server_name, self.broker))
    }

    /// Returns true if findings of this class are printed one by one.
    fn is_printed(&self, finding: &Finding) -> bool {
        self.arguments.verbose || self.arguments.findings.counts(finding.violation.class())
    }

    /// Returns an event as text, if it has one.
    fn text_of(&mut self, event: Event<'_>) -> Option<String> {
        let server_name = self.server_name;
        let broker = &self.broker;
        let text = match event {
            Event::Subscribed => {
                self.is_disconnected = false;
                format!("listening to {server_name} on the broker at {broker}")
            }
            Event::Disconnected(error) => {
                self.is_disconnected = true;
                let closed = if matches!(error, BrokerError::Closed) { CLOSED } else { "" };
                format!("disconnected from the broker at {broker}, retrying: {error}{closed}")
            }
            // The reason was told when the connection was lost.
            Event::Gap(Gap { since, until, .. }) if self.is_disconnected => {
                format!("payloads from {since} to {until} may have been missed")
            }
            Event::Gap(gap) => gap.to_string(),
            Event::Finding(finding) | Event::Suppressed(finding, _) if !self.is_printed(finding) => return None,
            Event::Finding(Finding { line, violation }) => {
                format!("{}: {}: {violation} (line {line})", violation.class(), violation.fingerprint())
            }
            Event::Suppressed(finding, count) => format!("{}: {count} more", finding.violation.fingerprint()),
            Event::Exceeded(exceeded) => format!("not all is judged: {exceeded}"),
            Event::RecordingFailed(why) => format!("the recording ends here, because it cannot be written: {why}"),
            Event::ReplicateFailed(why) => format!("the REPLICATE could not be sent: {why}"),
            Event::Unheard(unheard) => unheard_text(unheard, server_name),
            Event::Tick => return None,
        };
        Some(printable(&text))
    }

    /// Returns an event as JSON, or null if it has none.
    fn json_of(&self, event: Event<'_>) -> Value {
        match event {
            Event::Subscribed => json!({ "kind": "listening", "broker": self.broker.to_string() }),
            Event::Disconnected(error) => {
                json!({ "kind": "deaf", "broker": self.broker.to_string(), "why": error.to_string() })
            }
            Event::Gap(gap) => {
                let seconds = gap.until.ms_since(gap.since) as f64 / 1_000.0;
                json!({ "kind": "away", "seconds": seconds, "why": gap.why })
            }
            Event::Finding(finding) => {
                let mut value = serde_json::to_value(FindingJson::from(finding)).expect("a finding is plain data");
                value["kind"] = "finding".into();
                value
            }
            Event::Suppressed(finding, count) => {
                let violation = &finding.violation;
                let fingerprint = violation.fingerprint();
                json!({ "kind": "omitted", "fingerprint": fingerprint, "class": violation.class(), "count": count })
            }
            Event::Exceeded(exceeded) => {
                let mut value = serde_json::to_value(exceeded).expect("a bound is plain data");
                value["kind"] = "exceeded".into();
                value
            }
            Event::RecordingFailed(why) => json!({ "kind": "not_recorded", "why": why }),
            Event::ReplicateFailed(why) => json!({ "kind": "not_asked", "why": why }),
            Event::Unheard(unheard) => {
                json!({ "kind": "unheard", "message": unheard_text(unheard, self.server_name) })
            }
            Event::Tick => Value::Null,
        }
    }

    fn write_json(&self, seconds: f64, mut value: Value) {
        if !value.is_null() {
            value["t"] = seconds.into();
            self.write(&value.to_string());
        }
    }

    fn write(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        self.check(&writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
    }

    /// Notes that the reader has closed the output, if it cannot be written.
    fn check(&self, written: &io::Result<()>) {
        if written.is_err() {
            self.closed.notify_one();
        }
    }
}

/// Returns the text for a silence, with the remedy.
fn unheard_text(unheard: Unheard, server_name: &str) -> String {
    let seconds = HEARD_WITHIN_MS / 1_000;
    let remedy = "Check the server name, and that the workers use this broker";
    match unheard {
        Unheard::NoAnswer => {
            format!("no instance of {server_name} answered the REPLICATE within {seconds} s. {remedy}")
        }
        Unheard::Nothing => format!(
            "nothing was heard of {server_name} for {seconds} s. {remedy}. If the deployment may be idle, add --send-replicate, \
             which every instance answers"
        ),
    }
}

fn json_summary(follower: &Follower) -> Value {
    let checks: Map = follower.judged().map(|(rule, judged)| (rule.to_owned(), judged.into())).collect();
    let gaps = follower.gaps();
    json!({
        "kind": "summary",
        "seconds": follower.now().0 as f64 / 1_000.0,
        "tally": follower.tally(),
        "checks": checks,
        "away": { "times": gaps.count, "seconds": gaps.ms as f64 / 1_000.0 },
        "findings": follower.counts_by_kind(),
        "classes": follower.counts_by_class(),
        "ignored": follower.ignored(),
        "exceeded": follower.exceeded(),
        "recording_error": follower.recording_error(),
    })
}

type Map = serde_json::Map<String, Value>;
