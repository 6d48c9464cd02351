//! Properties of readers, for any bytes: they read or refuse them, an error about a peer's bytes is short, and what was read
//! is the same after it was written and read again.
//!
//! Each function is a target of `cargo fuzz` (see `docs/limits.md`). `tests/hostile` gives each the files in `corpus/`, with
//! the stable compiler.

use std::io::{self, Cursor};
use std::path::Path;
use std::rc::Rc;
use std::str;

use squall::observer::Env;
use squall::serve::File;
use squall::sim::plan::Plan;
use squall::transport::RedisConfig;
use squall::transport::redis::resp::{Reply, ReplyDecoder, RequestDecoder, encode_request};
use squall::transport::redis::{Broker, subscribe};
use squall_env::{Address, BoxStream, Listener, LocalBoxFuture, Network, Noop, SeedTree, SystemClock, TaskSpawner};
use squall_judge::audit::report::KEPT_OF_KIND_MAX;
use squall_judge::audit::{Audit, Capture, Report};
use squall_protocol::client_token::SyncToken;
use squall_protocol::rows::{Row, v1_19};
use squall_protocol::{Command, Dialect, Header, InstanceId, InstanceMap, InstanceName, Newer, StreamName, json};

#[path = "../support/pieces.rs"]
mod pieces;

use pieces::decode;

/// The longest text of an error about a peer's bytes. It quotes 200 characters of them, which may be escaped.
const ERROR_BYTES_MAX: usize = 3_000;

/// A target: its name, and its property.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("lines", lines),
    ("rows", rows),
    ("tokens", tokens),
    ("redis", redis),
    ("recordings", recordings),
    ("plans", plans),
    ("configurations", configurations),
];

/// Bytes of a peer over TCP.
pub fn lines(bytes: &[u8]) {
    let lines = decode([bytes]);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    assert_eq!(decode([first, second]), lines, "the pieces matter");
    for line in lines.iter().flatten() {
        let _ = Header::peek(line);
        for dialect in [Dialect::V1_163, Dialect::V1_19] {
            match dialect.parse(line) {
                Ok(command) => {
                    let written = command.to_line().expect("what was read from a line has no line break");
                    assert_eq!(Command::parse(&written), Ok(command), "{line:?} in {dialect:?}");
                }
                Err(error) => {
                    is_short(&error);
                    let _ = Newer::of(line, &error);
                }
            }
        }
    }
}

/// The name of a stream, a space, and a row of it, in either version.
pub fn rows(bytes: &[u8]) {
    let Some((stream, row)) = str::from_utf8(bytes).ok().and_then(|text| text.split_once(' ')) else { return };
    let stream = StreamName::from(stream);
    match json::parse(row).map(|row| Row::parse(&stream, row)) {
        Ok(Ok(row)) => assert_eq!(Row::parse(&stream, row.to_json()).as_ref(), Ok(&row)),
        Ok(Err(error)) => is_short(&error),
        Err(error) => is_short(&error),
    }
    match json::parse(row).map(|row| v1_19::Row::parse(&stream, row)) {
        Ok(Ok(row)) => assert_eq!(v1_19::Row::parse(&stream, row.to_json()).as_ref(), Ok(&row)),
        Ok(Err(error)) => is_short(&error),
        Err(error) => is_short(&error),
    }
}

/// The `since` of a client.
pub fn tokens(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let instances = ["master", "writer1", "writer2"].map(InstanceName::from);
    let instances: InstanceMap = instances.into_iter().zip((1..).map(InstanceId)).collect();
    match SyncToken::parse(text, &instances) {
        Ok(token) => {
            assert_eq!(SyncToken::parse(&token.render(&instances), &instances).as_ref(), Ok(&token));
            assert!(token.is_within(&token));
            assert_eq!(token.merge(&token), token);
        }
        Err(error) => is_short(&error),
    }
}

/// Bytes of a client of the simulated broker, of a broker that is observed, and of a broker to which an instance subscribes.
pub fn redis(bytes: &[u8]) {
    let mut requests = RequestDecoder::default();
    requests.buffer().extend_from_slice(bytes);
    while let Ok(Some(request)) = requests.next_request() {
        let mut again = RequestDecoder::default();
        again.buffer().extend_from_slice(&encode_request(&request));
        assert_eq!(again.next_request(), Ok(Some(request)));
    }
    let mut replies = ReplyDecoder::default();
    replies.extend(bytes);
    while let Some(reply) = replies.next_reply() {
        let mut again = ReplyDecoder::default();
        again.extend(&Reply::to_bytes(&reply));
        assert_eq!(again.next_reply(), Some(reply));
    }
    subscribed(bytes.to_vec());
}

/// Subscribes at a broker that sends these bytes and closes the connection.
fn subscribed(bytes: Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env: Env = Env {
            network: Rc::new(Sends(bytes)),
            clock: Rc::new(SystemClock),
            seeds: SeedTree::from_seed(0),
            observer: Rc::new(Noop),
            tasks: TaskSpawner::new(Rc::new(Noop)),
        };
        let config =
            RedisConfig { host: "redis".into(), port: 1, user: None, password: None, tls: None, sentinel: None };
        let error = match subscribe(&Broker::new(&config, &env), &["channel".to_owned()]).await {
            Ok((_sink, mut messages)) => loop {
                if let Err(error) = messages.next().await {
                    break messages.cause(error);
                }
            },
            Err(error) => error,
        };
        is_short(&error);
    });
}

/// A network whose every server sends these bytes and closes the connection.
struct Sends(Vec<u8>);

impl Network for Sends {
    fn connect(&self, _to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let stream = tokio::io::join(Cursor::new(self.0.clone()), tokio::io::sink());
        Box::pin(async move { Ok(Box::new(stream) as BoxStream) })
    }

    fn listen(&self, _port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// A recording for `squall audit`, packed or not.
pub fn recordings(bytes: &[u8]) {
    let capture = Capture::new(Cursor::new(bytes.to_vec()));
    let Ok(capture) = capture else { return };
    let report = Report::keeping(Audit::new(capture.transport(), None), capture, KEPT_OF_KIND_MAX);
    let report: serde_json::Value = serde_json::from_str(&report.to_json("recording")).expect("a report is JSON");
    assert!(report.is_object());
}

/// A plan for `squall run --plan`.
pub fn plans(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match Plan::load(text) {
        Ok(plan) => {
            let written = serde_json::to_string(&plan).expect("a plan is JSON");
            assert_eq!(Plan::load(&written).expect("a plan that was read can be read again"), plan);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A configuration file of `squall serve`.
pub fn configurations(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match File::parse(Path::new("squall.toml"), text) {
        Ok(file) => assert!(file.config.validate().is_ok()),
        Err(error) => assert!(error.to_string().starts_with("squall.toml")),
    }
}

fn is_short(error: &impl ToString) {
    let text = error.to_string();
    assert!(text.len() < ERROR_BYTES_MAX, "an error of {} bytes", text.len());
}
