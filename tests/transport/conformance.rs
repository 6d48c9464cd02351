//! Recorded requests between real Synapse processes, and 85 unusual requests, sent to Squall.
//!
//! The recordings are of Synapse 1.163.2: a master, two event persisters, a writer of the other streams, and a worker.
//! Every answer must be equal to Synapse's, byte for byte. The exceptions are in `http_deviations.json`, each with
//! Squall's answer and the reason. The test fails for an undeclared difference, and for a declared one that does not
//! occur.
//!
//! The rows in the recorded answers are first put into the database. An answer that the recording cuts is compared up
//! to its last whole row. The positions in `_INT_STREAM_POS` depend on all earlier requests. Therefore only the streams
//! and their order are compared, without the streams that Squall does not have. The position of events is compared as
//! well, because the earlier events are the same.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Transaction;
use serde::Deserialize;
use serde_json::Value;
use squall::instance::Instance;
use squall::instance::config::StreamWriters;
use squall::store::SOURCES;
use squall::streams;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, StreamName, Token};

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
    /// The subject of an unusual request; none for a request of Synapse itself.
    what: Option<String>,
    /// The instance that received the request; not recorded for malformed requests.
    to: Option<String>,
    request: String,
    authorization: Option<String>,
    body: Option<String>,
    status: u16,
    answer: String,
    /// True if the recording has only the beginning of the answer.
    #[serde(default)]
    cut: bool,
}

/// Answers of Squall that differ from Synapse's for one reason, by request.
#[derive(Debug, Deserialize)]
struct Deviations {
    reason: String,
    answers: BTreeMap<String, (u16, String)>,
}

fn recorded(lines: &str) -> Vec<Recorded> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Recorded {
    /// Returns the name under which a deviation is declared. Equal requests of Synapse share a name, because
    /// their answers are alike.
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

    /// The requested stream.
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

    /// Returns the instance that answers the request in a deployment with the same writers.
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

    /// Returns the whole rows of Squall's streams in the recorded answer, and the offset at which the last of them ends.
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
            if streams::names().any(|name| name == stream)
                && let Ok(row) = Row::parse(&StreamName::from(stream), row)
            {
                rows.push((token, row));
            }
        }
    }

    /// Returns true if Squall's answer is the recorded one.
    fn is(&self, status: u16, answer: &str) -> bool {
        if self.cut {
            let (_, end) = self.rows();
            return status == self.status && answer.starts_with(&self.answer[..end]);
        }
        (status, normal(answer)) == (self.status, normal(&self.answer))
    }
}

/// Returns an answer without the positions that cannot be compared.
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
            caches: Vec::new(),
        },
    )
}

/// Announces positions of every writer that are past those for which recorded requests wait.
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

/// Puts the rows in the recorded answers into the database.
async fn put_rows(deployment: &Deployment, answers: &[Recorded]) {
    let mut rows = BTreeSet::new();
    for answer in answers.iter().filter(|answer| answer.target() != "writer1" || answer.stream() != Some("caches")) {
        rows.extend(answer.rows().0);
    }
    // Typing is not in the database.
    rows.retain(|(_, row)| !matches!(row, Row::Typing(_)));
    let seed =
        move |tx: &Transaction<'_>| rows.iter().try_for_each(|(token, row)| put(tx, &writer_of(row), *token, row));
    deployment.database().transaction("put_rows", seed).await.unwrap();
}

/// Returns the writer of such a row in the recording.
fn writer_of(row: &Row) -> InstanceName {
    match row {
        Row::Events(_) => "persister1",
        Row::Caches(_) => "master",
        _ => "writer1",
    }
    .into()
}

/// Makes the users type as in the recorded answer.
fn type_as_in(answer: &Recorded, writer: &Instance) {
    let (rows, _) = answer.rows();
    writer.typing().reset();
    for (token, row) in &rows {
        if let Row::Typing(row) = row {
            writer.typing().apply(*token, row);
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

/// Sends the requests to a deployment that has the rows in the answers to `probes`.
async fn ask_all(requests: &[Recorded], probes: &[Recorded], findings: &mut Findings) {
    let deployment = deployment();
    move_on(&deployment).await;
    let mut instances = Vec::new();
    for name in LISTENERS {
        instances.push(deployment.start(name).await);
    }
    // Not before every instance runs: a presence writer that found the rows at its start would continue them.
    put_rows(&deployment, probes).await;
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

/// Sends the events to a persister that has none, as in the recording, and compares the rows that it returns.
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
