//! The inputs and outputs of Synapse 1.163.2's own classes (`tests/data/vectors_1.163.2.json`), and Squall's deliberate
//! deviations (`tests/data/deviations.json`).
//!
//! Fields stay text until they are used: a few hold JSON that `serde_json` refuses or silently changes.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use squall_protocol::{
    Command, FederationAck, LockReleased, ParseErrorKind, Position, Rdata, Token, UserIp, UserSync, json as python,
};

const VECTORS: &str = include_str!("../data/vectors_1.163.2.json");

/// The parts of the vectors that are about commands.
#[derive(Deserialize)]
pub(crate) struct Vectors {
    pub valid_server_commands: Vec<String>,
    pub valid_client_commands: Vec<String>,
    pub command_map: Vec<String>,
    pub commands: Vec<Built>,
    pub parse: Vec<Parsed>,
    pub parse_errors: Vec<Refused>,
}

/// The parts of a version's vectors that are about rows.
#[derive(Deserialize)]
pub(crate) struct RowVectors {
    pub streams: Vec<GivenStream>,
    pub rows: Vec<GivenRow>,
    pub row_errors: Vec<GivenRow>,
}

/// A stream of Synapse.
#[derive(Deserialize)]
pub(crate) struct GivenStream {
    pub name: String,
}

/// A row, and the stream whose row class read it.
#[derive(Deserialize)]
pub(crate) struct GivenRow {
    pub stream: String,
    pub row: Value,
}

/// A command Synapse built from fields, wrote, and read again.
#[derive(Deserialize)]
pub(crate) struct Built {
    pub command: String,
    pub fields: Box<RawValue>,
    pub wire: Option<String>,
    pub construct_error: Option<String>,
    pub reparsed_fields: Option<Box<RawValue>>,
    pub roundtrip_wire: Option<String>,
    pub reparse_error: Option<String>,
}

/// A line Synapse read.
#[derive(Deserialize)]
pub(crate) struct Parsed {
    pub line: String,
    pub command: String,
    pub fields: Box<RawValue>,
    pub wire_again: String,
}

/// A line Synapse refused.
#[derive(Deserialize)]
pub(crate) struct Refused {
    pub line: String,
}

pub(crate) fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).expect("the vectors are JSON")
}

pub(crate) fn of_rows() -> RowVectors {
    serde_json::from_str(VECTORS).expect("the vectors are JSON")
}

pub(crate) fn of_rows_1_19() -> RowVectors {
    serde_json::from_str(&text_1_19()).expect("the vectors are JSON")
}

/// Returns the vectors of Synapse 1.19.1 (`tests/data/vectors_1.19.1.json.gz`).
pub(crate) fn text_1_19() -> String {
    let mut text = String::new();
    let packed = &include_bytes!("../data/vectors_1.19.1.json.gz")[..];
    GzDecoder::new(packed).read_to_string(&mut text).expect("the vectors are packed text");
    text
}

/// The reason why Squall refuses a line that Synapse reads.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum Reason {
    #[serde(rename = "token outside 64 bits")]
    TokenOutside64Bits,
    #[serde(rename = "underscore between digits")]
    UnderscoreBetweenDigits,
    #[serde(rename = "digit outside ASCII")]
    DigitOutsideAscii,
    #[serde(rename = "lone surrogate")]
    LoneSurrogate,
}

impl Reason {
    /// Returns true if an error is the one this reason leads to.
    pub(crate) fn explains(self, kind: &ParseErrorKind) -> bool {
        match self {
            Reason::TokenOutside64Bits => matches!(kind, ParseErrorKind::IntegerOutOfRange { .. }),
            Reason::UnderscoreBetweenDigits | Reason::DigitOutsideAscii => {
                matches!(kind, ParseErrorKind::BadInteger { .. })
            }
            Reason::LoneSurrogate => matches!(kind, ParseErrorKind::Json(_)),
        }
    }
}

/// Returns the lines that Squall refuses on purpose.
pub(crate) fn deviations() -> BTreeMap<String, Reason> {
    #[derive(Deserialize)]
    struct Deviation {
        line: String,
        reason: Reason,
    }
    let list: Vec<Deviation> =
        serde_json::from_str(include_str!("../data/deviations.json")).expect("the deviations are JSON");
    let count = list.len();
    let deviations: BTreeMap<_, _> = list.into_iter().map(|each| (each.line, each.reason)).collect();
    assert_eq!(deviations.len(), count, "a deviation is listed twice");
    deviations
}

/// Returns the command of these fields, or `None` if Squall's types cannot hold them.
pub(crate) fn command_of(name: &str, fields: &RawValue) -> Option<Command> {
    let fields = python::parse(fields.get()).ok()?;
    let text = |key: &str| fields[key].as_str().map(str::to_owned);
    let integer = |key: &str| fields[key].as_i64();
    let token = |key: &str| integer(key).map(Token);
    let any = |key: &str| fields.get(key).cloned();
    Some(match name {
        "SERVER" => Command::Server(text("data")?),
        "NAME" => Command::Name(text("data")?),
        "PING" => Command::Ping(text("data")?),
        "ERROR" => Command::Error(text("data")?),
        "REPLICATE" => Command::Replicate,
        "POSITION" => Command::Position(Position {
            stream: text("stream_name")?.into(),
            writer: text("instance_name")?.into(),
            prev: token("prev_token")?,
            new: token("new_token")?,
        }),
        "RDATA" => Command::Rdata(Rdata {
            stream: text("stream_name")?.into(),
            writer: text("instance_name")?.into(),
            token: if fields["token"].is_null() { None } else { Some(token("token")?) },
            row: any("row")?,
        }),
        "USER_SYNC" => Command::UserSync(UserSync {
            instance_id: text("instance_id")?,
            user_id: text("user_id")?,
            device_id: text("device_id"),
            is_syncing: fields["is_syncing"].as_bool()?,
            last_sync_ms: integer("last_sync_ms")?,
        }),
        "CLEAR_USER_SYNC" => Command::ClearUserSync(text("instance_id")?),
        "FEDERATION_ACK" => {
            Command::FederationAck(FederationAck { instance: text("instance_name")?.into(), token: token("token")? })
        }
        "USER_IP" => Command::UserIp(UserIp {
            user_id: text("user_id")?,
            access_token: any("access_token")?,
            ip: any("ip")?,
            user_agent: any("user_agent")?,
            device_id: any("device_id")?,
            last_seen: any("last_seen")?,
        }),
        "REMOTE_SERVER_UP" => Command::RemoteServerUp(text("data")?),
        "LOCK_RELEASED" => Command::LockReleased(LockReleased {
            instance_name: any("instance_name")?,
            lock_name: any("lock_name")?,
            lock_key: any("lock_key")?,
        }),
        "NEW_ACTIVE_TASK" => Command::NewActiveTask(text("data")?),
        "CANCEL_TASK" => Command::CancelTask(text("data")?),
        unknown => panic!("the vectors name a command this test does not know: {unknown}"),
    })
}

/// Returns the fields of a command, under the names of the vectors.
pub(crate) fn fields_of(command: &Command) -> Value {
    match command {
        Command::Replicate => json!({}),
        Command::Position(Position { stream, writer, prev, new }) => {
            json!({"stream_name": stream, "instance_name": writer, "prev_token": prev, "new_token": new})
        }
        Command::Rdata(Rdata { stream, writer, token, row }) => {
            json!({"stream_name": stream, "instance_name": writer, "token": token, "row": row})
        }
        Command::UserSync(UserSync { instance_id, user_id, device_id, is_syncing, last_sync_ms }) => json!({
            "instance_id": instance_id,
            "user_id": user_id,
            "device_id": device_id,
            "is_syncing": is_syncing,
            "last_sync_ms": last_sync_ms,
        }),
        Command::ClearUserSync(instance_id) => json!({"instance_id": instance_id}),
        Command::FederationAck(FederationAck { instance, token }) => {
            json!({"instance_name": instance, "token": token})
        }
        Command::UserIp(UserIp { user_id, access_token, ip, user_agent, device_id, last_seen }) => json!({
            "user_id": user_id,
            "access_token": access_token,
            "ip": ip,
            "user_agent": user_agent,
            "device_id": device_id,
            "last_seen": last_seen,
        }),
        Command::LockReleased(LockReleased { instance_name, lock_name, lock_key }) => {
            json!({"instance_name": instance_name, "lock_name": lock_name, "lock_key": lock_key})
        }
        Command::Server(data)
        | Command::Name(data)
        | Command::Ping(data)
        | Command::Error(data)
        | Command::RemoteServerUp(data)
        | Command::NewActiveTask(data)
        | Command::CancelTask(data) => json!({"data": data}),
    }
}

/// Returns the fields of a vector as a value to compare with.
pub(crate) fn expected(fields: &RawValue) -> Value {
    python::parse(fields.get()).expect("fields that need no deviation are ordinary JSON")
}
