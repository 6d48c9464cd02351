//! What real Synapse processes asked each other, and how they answered 85 odd questions, put to Squall.
//!
//! The recordings are of Synapse 1.163.2: a master, two event persisters, a writer of the other streams, and a worker.
//! Every answer must be Synapse's, byte for byte, save what `http_deviations.json` declares, with what Squall answers
//! instead and why. Both ways: a difference that is not declared fails, and so does a declared one that is none.
//!
//! What the answers presuppose is put into the database: the rows that they tell of. Answers that the recording cuts are
//! compared up to their last whole row. Of the positions in `_INT_STREAM_POS`, which depend on everything that happened
//! before, only the streams and their order are compared, without those that Squall does not have; except for events,
//! where what happened before is the same.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Transaction;
use serde::Deserialize;
use serde_json::Value;
use squall::instance::Instance;
use squall::instance::config::StreamWriters;
use squall::protocol::{InstanceName, StreamName, Token};
use squall::streams::{Row, SOURCES};

use crate::deployment::{Deployment, SECRET};
use crate::requests::{ask, get};
use crate::rows::put;
use crate::run;

const EXCHANGES: &str = include_str!("../data/http_exchanges_1.163.2.jsonl");
const PROBES: &str = include_str!("../data/http_probes_1.163.2.jsonl");
const DEVIATIONS: &str = include_str!("../data/http_deviations.json");

const LISTENERS: [&str; 4] = ["master", "persister1", "persister2", "writer1"];
/// Ahead of every token that a recorded request waits for.
const POSITION: i64 = 1_000;

/// One request and its answer.
#[derive(Debug, Deserialize)]
struct Recorded {
    /// What an odd question is about; none for what Synapse itself asked.
    what: Option<String>,
    /// Who was asked; not recorded for odd questions.
    to: Option<String>,
    request: String,
    authorization: Option<String>,
    body: Option<String>,
    status: u16,
    answer: String,
    /// Whether the recording has only the beginning of the answer.
    #[serde(default)]
    cut: bool,
}

/// What Squall answers instead, and why: answers by what was asked.
#[derive(Debug, Deserialize)]
struct Deviations {
    reason: String,
    answers: BTreeMap<String, (u16, String)>,
}

fn recorded(lines: &str) -> Vec<Recorded> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Recorded {
    /// Under which name a deviation is declared: what Synapse asks several times is answered alike.
    fn name(&self) -> String {
        match &self.what {
            Some(what) => what.clone(),
            None => format!("{} {}", self.method(), self.endpoint()),
        }
    }

    fn method(&self) -> &str {
        self.request.split(' ').next().unwrap()
    }

    fn endpoint(&self) -> &str {
        self.request.split('/').nth(3).unwrap()
    }

    /// The stream whose rows are asked for.
    fn stream(&self) -> Option<&str> {
        let rest = self.request.split("get_repl_stream_updates/").nth(1)?;
        rest.split(['/', '?']).next()
    }

    fn authorization(&self) -> Option<String> {
        match self.what {
            Some(_) => self.authorization.clone(),
            None => Some(format!("Bearer {SECRET}")),
        }
    }

    /// Whom to ask in a deployment that is written by the same instances.
    fn target(&self) -> &str {
        let is_nonwriter = self.what.as_ref().is_some_and(|what| what.starts_with("nonwriter"));
        match (&self.to, self.stream(), self.endpoint()) {
            (Some(to), ..) => to,
            // The worker, which does not listen in Squall, wrote the rows of this answer.
            (_, Some("caches"), _) if is_nonwriter => "writer1",
            (_, Some(_), _) if is_nonwriter => "master",
            (_, Some("events"), _) | (_, _, "send_events") => "persister1",
            (_, Some("presence" | "typing" | "receipts" | "account_data" | "to_device"), _) => "writer1",
            (_, _, "bump_presence_active_time") => "writer1",
            _ => "master",
        }
    }

    /// The rows that the answer tells of, as far as they are there, and where the last of them ends.
    fn rows(&self) -> (Vec<(Token, Row)>, usize) {
        let (Some(stream), Some(list)) = (self.stream(), self.answer.strip_prefix(r#"{"updates":["#)) else {
            return (Vec::new(), 0);
        };
        let (mut rows, mut end) = (Vec::new(), self.answer.len() - list.len());
        loop {
            let rest = &self.answer[end..];
            let rest = rest.strip_prefix(',').unwrap_or(rest);
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<(Token, Value)>();
            let Some(Ok((token, row))) = values.next() else { return (rows, end) };
            end = self.answer.len() - rest.len() + values.byte_offset();
            if let Ok(row) = Row::parse(&StreamName::from(stream), row) {
                rows.push((token, row));
            }
        }
    }

    /// Whether Squall's answer is the recorded one.
    fn is(&self, status: u16, answer: &str) -> bool {
        if self.cut {
            let (_, end) = self.rows();
            return status == self.status && answer.starts_with(&self.answer[..end]);
        }
        (status, normal(answer)) == (self.status, normal(&self.answer))
    }
}

/// An answer without the positions that cannot be compared.
fn normal(answer: &str) -> String {
    let Ok(Value::Object(mut body)) = serde_json::from_str::<Value>(answer) else { return answer.to_owned() };
    let Some(Value::Object(positions)) = body.get_mut("_INT_STREAM_POS") else { return answer.to_owned() };
    positions.retain(|stream, _| stream == "typing" || SOURCES.iter().any(|source| source.name == stream));
    for (_, token) in positions.iter_mut().filter(|(stream, _)| *stream != "events") {
        assert!(token.is_i64(), "{answer}");
        *token = "a token".into();
    }
    Value::Object(body).to_string()
}

fn deployment() -> Deployment {
    Deployment::of(
        &LISTENERS,
        StreamWriters {
            events: vec!["persister1".into(), "persister2".into()],
            typing: "writer1".into(),
            account_data: "writer1".into(),
            presence: "writer1".into(),
            receipts: vec!["writer1".into()],
            to_device: "writer1".into(),
        },
    )
}

/// Says that every writer is past what recorded requests wait for.
async fn move_on(deployment: &Deployment) {
    let move_on = |tx: &Transaction<'_>| {
        for source in SOURCES {
            let last = "INSERT INTO sequences (name, last_value) VALUES (?1, ?2)";
            tx.execute(last, (source.sequence, POSITION))?;
            for writer in LISTENERS {
                let at = "INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES (?1, ?2, ?3)";
                tx.execute(at, (source.name, writer, POSITION))?;
            }
        }
        Ok(())
    };
    deployment.database().transaction("move_on", move_on).await.unwrap();
}

/// Puts the rows that answers tell of into the database.
async fn presuppose(deployment: &Deployment, answers: &[Recorded]) {
    let mut rows = BTreeSet::new();
    for answer in answers.iter().filter(|answer| answer.target() != "writer1" || answer.stream() != Some("caches")) {
        rows.extend(answer.rows().0);
    }
    // Typing is in no database.
    rows.retain(|(_, row)| !matches!(row, Row::Typing(_)));
    let seed =
        move |tx: &Transaction<'_>| rows.iter().try_for_each(|(token, row)| put(tx, &writer_of(row), *token, row));
    deployment.database().transaction("presuppose", seed).await.unwrap();
}

/// Who wrote such a row when it was recorded.
fn writer_of(row: &Row) -> InstanceName {
    match row {
        Row::Events(_) => "persister1",
        Row::Caches(_) => "master",
        _ => "writer1",
    }
    .into()
}

/// Makes everybody type who does in the answer.
fn type_as_in(answer: &Recorded, writer: &Instance) {
    let (rows, _) = answer.rows();
    writer.typing().reset();
    for (token, row) in &rows {
        if let Row::Typing(row) = row {
            writer.typing().take(*token, row);
        }
    }
    let upto = answer.request.rsplit("upto_token=").next().unwrap().parse().unwrap();
    let serial = rows.last().map_or(upto, |(token, _)| token.0);
    writer.typing().advance(Token(serial));
}

#[derive(Default)]
struct Findings {
    declared: BTreeMap<String, (u16, String)>,
    met: BTreeSet<String>,
    alike: usize,
    wrong: Vec<String>,
}

impl Findings {
    fn new() -> Self {
        let groups: Vec<Deviations> = serde_json::from_str(DEVIATIONS).unwrap();
        let mut findings = Findings::default();
        for Deviations { reason, answers } in groups {
            assert!(!reason.is_empty());
            for (name, answer) in answers {
                assert!(findings.declared.insert(name.clone(), answer).is_none(), "{name} is declared twice");
            }
        }
        findings
    }

    fn compare(&mut self, recorded: &Recorded, status: u16, answer: &str) {
        let name = recorded.name();
        let is_alike = recorded.is(status, answer);
        let squall = serde_json::to_string(&(status, answer)).unwrap();
        match self.declared.get(&name) {
            None if is_alike => self.alike += 1,
            None => self.wrong.push(format!(
                "{name:?} ({}): Squall answers {squall}, Synapse {} {}",
                recorded.request, recorded.status, recorded.answer
            )),
            Some(_) if is_alike => self.wrong.push(format!("{name:?} is declared to deviate, but is alike")),
            Some((declared, body)) if (*declared, body.as_str()) != (status, answer) => {
                self.wrong.push(format!("{name:?} deviates in another way than declared: {squall}"));
            }
            Some(_) => drop(self.met.insert(name)),
        }
    }
}

#[test]
fn every_recorded_request_is_answered_as_synapse_does_or_as_declared() {
    let (exchanges, probes) = (recorded(EXCHANGES), recorded(PROBES));
    assert_eq!((exchanges.len(), probes.len()), (45, 85));
    let mut findings = Findings::new();
    for requests in [&exchanges, &probes] {
        run(async { ask_all(requests, &probes, &mut findings).await });
    }
    run(async { send_events(&exchanges, &probes, &mut findings).await });
    let unmet: Vec<_> = findings.declared.keys().filter(|name| !findings.met.contains(*name)).collect();
    assert!(findings.wrong.is_empty() && unmet.is_empty(), "{}\nnot met: {unmet:?}", findings.wrong.join("\n"));
    assert!(findings.alike >= 30, "only {} answers are Synapse's", findings.alike);
}

/// Asks a deployment that has the rows which the answers to `probes` tell of.
async fn ask_all(requests: &[Recorded], probes: &[Recorded], findings: &mut Findings) {
    let deployment = deployment();
    move_on(&deployment).await;
    let mut instances = Vec::new();
    for name in LISTENERS {
        instances.push(deployment.start(name).await);
    }
    // Now that everybody runs: a presence writer that finds them at its start takes them for its own, and goes on.
    presuppose(&deployment, probes).await;
    let writer = instances.iter().find(|instance| instance.name().as_str() == "writer1").unwrap();
    for recorded in requests.iter().filter(|recorded| recorded.what.is_some() || recorded.endpoint() != "send_events") {
        if recorded.stream() == Some("typing") && recorded.target() == "writer1" {
            type_as_in(recorded, writer);
        }
        let body = recorded.body.as_deref().filter(|_| recorded.method() != "GET");
        let authorization = recorded.authorization();
        let answered = ask(&deployment, recorded.target(), &recorded.request, authorization.as_deref(), body).await;
        findings.compare(recorded, answered.0, &answered.1);
    }
}

/// The events go to a persister that has none, as in the recording, and come out again as rows.
async fn send_events(exchanges: &[Recorded], probes: &[Recorded], findings: &mut Findings) {
    let deployment = deployment();
    let _persister = deployment.start("persister1").await;
    let sent: Vec<_> = exchanges.iter().filter(|recorded| recorded.endpoint() == "send_events").collect();
    assert_eq!(sent.len(), 4);
    for recorded in sent {
        let authorization = recorded.authorization();
        let body = recorded.body.as_deref();
        let (status, answer) = ask(&deployment, "persister1", &recorded.request, authorization.as_deref(), body).await;
        findings.compare(recorded, status, &answer);
    }
    let rows = probes.iter().find(|recorded| recorded.name() == "plus int").unwrap();
    let (status, answer) = get(&deployment, "persister1", rows.request.strip_prefix("GET ").unwrap()).await;
    assert!(rows.is(status, &answer), "{answer}\ninstead of {}", rows.answer);
}
