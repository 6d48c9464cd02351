//! The output of `squall follow`, for a terminal, for a file and for a program.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::rc::Rc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use tokio::sync::Notify;

use super::FollowArguments;
use crate::cli::findings::{KindFound, Summary, of_token, printable};
use crate::cli::table::{Align, Table, wrap};
use crate::follow::{Event, Follower};
use crate::transport::redis::BrokerError;
use squall_env::Address;
use squall_judge::audit::report::Found;
use squall_judge::audit::{Class, Finding, Gap, Origin};
use squall_judge::observation::SimTime;

/// Number of writers in the live table, so that it fits on a terminal.
const WRITERS_MAX: usize = 40;

/// Number of letters of a name in the live table, so that its lines fit 80 columns.
const NAME_LETTERS_MAX: usize = 12;

/// The reasons for which a broker closes a connection.
const CLOSED: &str = ", which stopped, or had more waiting for this subscriber than its client-output-buffer-limit";

/// Writes events and the summary to standard output.
pub(super) struct Output<'a> {
    mode: Mode,
    arguments: &'a FollowArguments,
    broker: Address,
    /// The reason for which the connection was lost, while it is lost.
    last_told: RefCell<Option<String>>,
    closed: Rc<Notify>,
}

/// The form of the output.
enum Mode {
    /// A table that is redrawn, with a line for each event above it.
    Table(ProgressBar),
    /// A line for each event.
    Lines,
    /// A JSON object for each event.
    Json,
}

impl<'a> Output<'a> {
    pub(super) fn new(arguments: &'a FollowArguments, broker: &Address) -> Self {
        let mode = match (arguments.json, io::stdout().is_terminal()) {
            (true, _) => Mode::Json,
            (false, false) => Mode::Lines,
            (false, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
                bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is valid"));
                Mode::Table(bar)
            }
        };
        Output { mode, arguments, broker: broker.clone(), last_told: RefCell::default(), closed: Rc::default() }
    }

    /// Returns a notification for the end of the reader: standard output is closed.
    pub(super) fn closed(&self) -> Rc<Notify> {
        Rc::clone(&self.closed)
    }

    /// Writes an event.
    pub(super) fn event(&self, now: SimTime, event: Event<'_>, follower: &Follower) {
        match &self.mode {
            Mode::Json => self.write_json(follower.seconds(now), self.json_of(event)),
            Mode::Lines => {
                if let Some(text) = self.text_of(event) {
                    self.write(&format!("{now} {text}"));
                }
            }
            Mode::Table(bar) => match self.text_of(event) {
                Some(text) => bar.println(format!("{now} {text}")),
                None => bar.set_message(self.live_table(now, follower)),
            },
        }
    }

    /// Removes the live table.
    pub(super) fn clear(&self) {
        if let Mode::Table(bar) = &self.mode {
            bar.finish_and_clear();
        }
    }

    /// Writes the summary.
    pub(super) fn summary(&self, follower: &Follower) {
        self.clear();
        if let Mode::Json = self.mode {
            self.write_json(follower.seconds(follower.now()), json_summary(follower));
        } else {
            self.write(self.text_summary(follower).trim_end());
        }
    }

    fn text_summary(&self, follower: &Follower) -> String {
        let gaps = follower.gaps();
        let mut kinds = Vec::new();
        let mut habits = Vec::new();
        for (fingerprint, class, found) in follower.found_by_class() {
            let list = if self.arguments.findings.counts(class) { &mut kinds } else { &mut habits };
            list.push(KindFound { class, fingerprint, count: found.count, first: &found.first });
        }
        kinds.sort_by_key(|kind| kind.class);
        let summary = Summary {
            tally: follower.tally(),
            checks: follower.judged().collect(),
            gaps: gaps.last.iter().collect(),
            gap_count: gaps.count,
            gap_ms: gaps.ms,
            kinds,
            habits,
            ignored: follower.ignored(),
            findings: Vec::new(),
            verbose: self.arguments.verbose,
        };
        wrap(&self.title(follower.now()), "  ") + &summary.text()
    }

    /// Returns the name of the deployment, its broker and the time.
    fn title(&self, now: SimTime) -> String {
        printable(&format!("{} on the broker at {}, {now}", self.arguments.server_name, self.broker))
    }

    /// Returns true if findings of this class are printed one by one.
    fn is_printed(&self, finding: &Finding) -> bool {
        self.arguments.verbose || self.arguments.findings.counts(finding.violation.class())
    }

    /// Returns an event as text, if it has one.
    fn text_of(&self, event: Event<'_>) -> Option<String> {
        let server_name = &self.arguments.server_name;
        let broker = &self.broker;
        let text = match event {
            Event::Subscribed => {
                self.last_told.take();
                format!("listening to {server_name} on the broker at {broker}")
            }
            Event::Disconnected(why) => {
                self.last_told.borrow_mut().get_or_insert_with(|| why.to_owned());
                let closed = if why == BrokerError::Closed.to_string() { CLOSED } else { "" };
                format!("disconnected from the broker at {broker}, retrying: {why}{closed}")
            }
            // The reason was told when the connection was lost.
            Event::Gap(Gap { since, until, why }) if self.last_told.borrow().as_ref() == Some(why) => {
                format!("payloads from {since} to {until} may have been missed")
            }
            Event::Gap(gap) => gap.to_string(),
            Event::Finding(finding) | Event::Suppressed(finding, _) if !self.is_printed(finding) => return None,
            Event::Finding(Finding { line, violation }) => {
                format!("{}: {}: {violation} (line {line})", violation.class(), violation.fingerprint())
            }
            Event::Suppressed(finding, count) => format!("{}: {count} more", finding.violation.fingerprint()),
            Event::RecordingFailed(why) => format!("the recording ends here, because it cannot be written: {why}"),
            Event::ReplicateFailed(why) => format!("the REPLICATE could not be sent: {why}"),
            Event::Tick => return None,
        };
        Some(printable(&text))
    }

    /// Returns an event as JSON, or null if it has none.
    fn json_of(&self, event: Event<'_>) -> Value {
        match event {
            Event::Subscribed => json!({ "kind": "listening", "broker": self.broker.to_string() }),
            Event::Disconnected(why) => json!({ "kind": "deaf", "broker": self.broker.to_string(), "why": why }),
            Event::Gap(gap) => {
                let seconds = gap.until.ms_since(gap.since) as f64 / 1_000.0;
                json!({ "kind": "away", "seconds": seconds, "why": gap.why })
            }
            Event::Finding(finding) => {
                let mut value = serde_json::to_value(Found::from(finding)).expect("a finding is plain data");
                value["kind"] = "finding".into();
                value
            }
            Event::Suppressed(finding, count) => {
                let violation = &finding.violation;
                let fingerprint = violation.fingerprint();
                json!({ "kind": "omitted", "fingerprint": fingerprint, "class": violation.class(), "count": count })
            }
            Event::RecordingFailed(why) => json!({ "kind": "not_recorded", "why": why }),
            Event::ReplicateFailed(why) => json!({ "kind": "not_asked", "why": why }),
            Event::Tick => Value::Null,
        }
    }

    /// Returns the live table: the position of every writer of every stream, and its findings.
    fn live_table(&self, now: SimTime, follower: &Follower) -> String {
        let tally = follower.tally();
        let counted = follower.found_by_class().filter(|(_, class, _)| self.arguments.findings.counts(*class));
        let found: u64 = counted.map(|(_, _, found)| found.count).sum();
        let state = match follower.disconnected() {
            Some(why) => format!("DISCONNECTED: {why}"),
            None => format!("{} payloads, {} parsed, {found} findings", tally.payloads, tally.parsed),
        };
        let mut text = wrap(&self.title(now), "  ") + &wrap(&printable(&state), "  ");
        let mut table = Table::new([
            ("stream", Align::Left),
            ("writer", Align::Left),
            ("token", Align::Right),
            ("behind", Align::Right),
            ("silent", Align::Right),
            ("skipped", Align::Right),
            ("unsent", Align::Right),
            ("findings", Align::Right),
        ]);
        let mut left_out = 0;
        let mut listed = 0;
        for (stream, writers) in &tally.streams {
            let first = writers.values().filter_map(|counts| counts.last_token).max();
            for (writer, counts) in writers {
                if listed == WRITERS_MAX {
                    left_out += 1;
                    continue;
                }
                listed += 1;
                let origin = Origin { stream: stream.clone(), writer: writer.clone() };
                let found_of = follower.found_of(&origin);
                let habits = if self.arguments.findings.counts(Class::Habit) { found_of.habits } else { 0 };
                let found = found_of.count + habits;
                let behind = first.zip(counts.last_token).map_or(0, |(first, token)| first.0.saturating_sub(token.0));
                let silent_s = counts.last_at.map_or(0, |last_at| now.ms_since(last_at) / 1_000);
                table.row([
                    short(stream.as_str()),
                    short(writer.as_str()),
                    of_token(counts.last_token),
                    behind.to_string(),
                    format!("{silent_s} s"),
                    found_of.skipped.to_string(),
                    counts.unsent.to_string(),
                    found.to_string(),
                ]);
            }
        }
        text.push_str(&table.render());
        if left_out > 0 {
            let _ = writeln!(text, "and {left_out} more");
        }
        text
    }

    fn write_json(&self, seconds: f64, mut value: Value) {
        if !value.is_null() {
            value["t"] = seconds.into();
            self.write(&value.to_string());
        }
    }

    fn write(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
            self.closed.notify_one();
        }
    }
}

/// Cuts a name from the traffic to the length that the live table has room for.
fn short(name: &str) -> String {
    let name = printable(name);
    if name.chars().count() <= NAME_LETTERS_MAX {
        return name;
    }
    name.chars().take(NAME_LETTERS_MAX - 1).chain(['…']).collect()
}

fn json_summary(follower: &Follower) -> Value {
    let checks: Map = follower.judged().map(|(rule, judged)| (rule.to_owned(), judged.into())).collect();
    let findings: Map =
        follower.found().iter().map(|(fingerprint, found)| (fingerprint.clone(), found.count.into())).collect();
    let gaps = follower.gaps();
    let mut classes: BTreeMap<Class, u64> = Class::iter().map(|class| (class, 0)).collect();
    for (_, class, found) in follower.found_by_class() {
        *classes.entry(class).or_default() += found.count;
    }
    json!({
        "kind": "summary",
        "seconds": follower.now().0 as f64 / 1_000.0,
        "tally": follower.tally(),
        "checks": checks,
        "away": { "times": gaps.count, "seconds": gaps.ms as f64 / 1_000.0 },
        "findings": findings,
        "classes": classes,
        "ignored": follower.ignored(),
        "recording_error": follower.recording_error(),
    })
}

type Map = serde_json::Map<String, Value>;
