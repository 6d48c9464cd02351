//! What a follower has to tell, for a terminal, for a file and for a program.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::rc::Rc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::cli::audit::{findings, printable, table};
use crate::cli::summary;
use crate::env::Address;
use crate::follow::{Follower, News};
use crate::judge::audit::Origin;
use crate::judge::audit::report::Found;
use crate::judge::observation::Moment;

/// How many lines the table has at the most, so that it fits on a terminal.
const TABLE_LINES_MAX: usize = 40;

/// How many letters of a name it shows, for the same reason.
const NAME_LETTERS_MAX: usize = 30;

/// Where it is told.
pub(super) struct Output {
    mode: Mode,
    server_name: String,
    broker: Address,
    gone: Rc<Notify>,
}

enum Mode {
    /// A table that is drawn again and again, with what happened above it.
    Table(ProgressBar),
    /// A line for everything that happened.
    Lines,
    /// A JSON object on a line.
    Json,
}

impl Output {
    pub fn new(is_json: bool, server_name: &str, broker: &Address) -> Self {
        let mode = match (is_json, io::stdout().is_terminal()) {
            (true, _) => Mode::Json,
            (false, false) => Mode::Lines,
            (false, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
                bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is valid"));
                Mode::Table(bar)
            }
        };
        Output { mode, server_name: server_name.to_owned(), broker: broker.clone(), gone: Rc::default() }
    }

    /// Is notified when nobody reads any more.
    pub fn gone(&self) -> Rc<Notify> {
        Rc::clone(&self.gone)
    }

    pub fn tell(&self, now: Moment, news: News<'_>, follower: &Follower) {
        match &self.mode {
            Mode::Json => self.say_json(follower.seconds(now), self.in_json(news)),
            Mode::Lines => {
                if let Some(words) = self.in_words(news) {
                    self.say(&format!("{now} {words}"));
                }
            }
            Mode::Table(bar) => match self.in_words(news) {
                Some(words) => bar.println(format!("{now} {words}")),
                None => bar.set_message(self.overview(now, follower)),
            },
        }
    }

    /// Takes the table away.
    pub fn clear(&self) {
        if let Mode::Table(bar) = &self.mode {
            bar.finish_and_clear();
        }
    }

    /// What it came to.
    pub fn sum_up(&self, follower: &Follower) {
        self.clear();
        let now = follower.now();
        if let Mode::Json = self.mode {
            let found = follower.found().iter().map(|(kind, found)| (kind.clone(), found.count.into()));
            let summary = json!({
                "kind": "summary",
                "seconds": now.0 as f64 / 1_000.0,
                "tally": follower.tally(),
                "checks": follower.judged().map(|(rule, judged)| (rule.to_owned(), judged.into())).collect::<Map>(),
                "away": { "times": follower.away().count, "seconds": follower.away().ms as f64 / 1_000.0 },
                "findings": found.collect::<Map>(),
                "recording_error": follower.recording_error(),
            });
            return self.say_json(follower.seconds(now), summary);
        }
        let mut text = self.overview(now, follower);
        let _ = writeln!(text, "checks: {}", summary::tally(&follower.judged().collect()));
        let away = follower.away();
        for away in &away.last {
            let _ = writeln!(text, "{away}");
        }
        if away.count > 0 {
            let seconds = away.ms as f64 / 1_000.0;
            let _ = writeln!(text, "{} times nothing could be heard, for {seconds:.3} s in all", away.count);
        }
        if follower.found().is_empty() {
            text.push_str("no findings");
        } else {
            let kinds = follower.found().iter().map(|(kind, found)| (&**kind, found.count, &found.first));
            text.push_str(findings(kinds).trim_end());
        }
        self.say(&text);
    }

    fn in_words(&self, news: News<'_>) -> Option<String> {
        let Output { server_name, broker, .. } = self;
        let words = match news {
            News::Listening => format!("listening to {server_name} on the broker at {broker}"),
            News::Deaf(why) => format!("nothing can be heard from the broker at {broker}, trying again: {why}"),
            News::Away(away) => format!("{away}; nobody is accused of what was said then"),
            News::Finding(finding) => {
                format!("{}: {} (line {})", finding.violation.fingerprint(), finding.violation, finding.line)
            }
            News::Omitted(fingerprint, count) => format!("{fingerprint}: {count} more"),
            News::NotRecorded(why) => format!("the recording ends here, as it cannot be written: {why}"),
            News::NotAsked(why) => format!("the positions could not be asked for: {why}"),
            News::Tick => return None,
        };
        Some(printable(&words))
    }

    fn in_json(&self, news: News<'_>) -> Value {
        match news {
            News::Listening => json!({ "kind": "listening", "broker": self.broker.to_string() }),
            News::Deaf(why) => json!({ "kind": "deaf", "broker": self.broker.to_string(), "why": why }),
            News::Away(away) => {
                let seconds = away.until.ms_since(away.since) as f64 / 1_000.0;
                json!({ "kind": "away", "seconds": seconds, "why": away.why })
            }
            News::Finding(finding) => {
                let mut value = serde_json::to_value(Found::from(finding)).expect("a finding is plain data");
                value["kind"] = "finding".into();
                value
            }
            News::Omitted(fingerprint, count) => {
                json!({ "kind": "omitted", "fingerprint": fingerprint, "count": count })
            }
            News::NotRecorded(why) => json!({ "kind": "not_recorded", "why": why }),
            News::NotAsked(why) => json!({ "kind": "not_asked", "why": why }),
            News::Tick => Value::Null,
        }
    }

    /// What there is: who wrote what, how far each is, and what was found of it.
    fn overview(&self, now: Moment, follower: &Follower) -> String {
        let (tally, found) = (follower.tally(), follower.found().values().map(|found| found.count).sum::<u64>());
        let mut text = format!("{} at {}, {now}: ", self.server_name, self.broker);
        let _ = match follower.deaf() {
            Some(why) => writeln!(text, "DEAF, {why}"),
            None => writeln!(text, "{} payloads, {} parsed, {found} findings", tally.payloads, tally.parsed),
        };
        let names = ["stream", "writer", "rows", "positions", "token", "behind", "silent", "skipped", "findings"];
        let mut rows = vec![names.map(str::to_owned)];
        for (stream, writers) in &tally.streams {
            let first = writers.values().filter_map(|said| said.last_token).max();
            for (writer, said) in writers {
                let origin = Origin { stream: stream.clone(), writer: writer.clone() };
                let of = follower.found_of(&origin);
                let token = said.last_token.map_or_else(|| "none".to_owned(), |token| token.to_string());
                let behind = first.zip(said.last_token).map_or(0, |(first, token)| first.0.saturating_sub(token.0));
                let silent_s = said.last_at.map_or(0, |last_at| now.ms_since(last_at) / 1_000);
                let numbers = [said.rows, said.positions].map(|number| number.to_string());
                let [rows_said, positions] = numbers;
                rows.push([
                    stream.as_str().chars().take(NAME_LETTERS_MAX).collect(),
                    writer.as_str().chars().take(NAME_LETTERS_MAX).collect(),
                    rows_said,
                    positions,
                    token,
                    behind.to_string(),
                    format!("{silent_s} s"),
                    of.skipped.to_string(),
                    of.count.to_string(),
                ]);
            }
        }
        let more = rows.len().saturating_sub(TABLE_LINES_MAX);
        rows.truncate(TABLE_LINES_MAX);
        text.push_str(&table(&rows, [false, false, true, true, true, true, true, true, true]));
        if more > 0 {
            let _ = writeln!(text, "and {more} more");
        }
        text
    }

    fn say_json(&self, seconds: f64, mut value: Value) {
        if !value.is_null() {
            value["t"] = seconds.into();
            self.say(&value.to_string());
        }
    }

    fn say(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
            self.gone.notify_one();
        }
    }
}

type Map = serde_json::Map<String, Value>;
