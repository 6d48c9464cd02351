//! Operations: what users do.
//!
//! Rooms and users are numbers here; whoever carries a plan out gives them names. An operation may fail, as a request
//! to a server that is down does.

use serde::{Deserialize, Serialize};

/// Something a user does at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// When, in simulated milliseconds since the start.
    pub at_ms: u64,
    /// What.
    pub kind: OperationKind,
    /// What its event ids and the draws of its request are made of; its place in the list, from 0, if not given. Given
    /// where others were taken away, so that it stays the operation that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<usize>,
}

impl Operation {
    /// An operation at a time, with its place in the list for an id.
    pub fn new(at_ms: u64, kind: OperationKind) -> Self {
        Operation { at_ms, kind, id: None }
    }
}

/// What a user does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OperationKind {
    /// Sends one message to a room.
    Send {
        /// The room.
        room: u32,
    },
    /// Changes much of a room's state in one transaction, as joining a large room or purging one does.
    StateBurst {
        /// The room.
        room: u32,
        /// How many `state` rows that makes.
        rows: u32,
        /// Over how many tokens they are spread.
        tokens: u32,
    },
    /// Persists many messages to a room in one transaction, as catching up over federation does.
    SendBurst {
        /// The room.
        room: u32,
        /// How many messages, each with a token of its own.
        events: u32,
    },
    /// Changes account data.
    AccountData {
        /// Whose.
        user: u32,
        /// Of which room; none if of the whole account.
        room: Option<u32>,
        /// Which of the user's data.
        datum: u32,
        /// How long its type is at least, in bytes. A line holds 16 384.
        type_bytes: u32,
    },
    /// Changes many account data at once, as a client does that has been offline.
    AccountDataBurst {
        /// Whose.
        user: u32,
        /// How many of the account.
        of_account: u32,
        /// How many of the room numbered 0.
        of_room: u32,
    },
    /// Reads up to the newest message of a room.
    Receipt {
        /// Who.
        user: u32,
        /// Where.
        room: u32,
        /// The host of the instance that the client talks to; the writer itself if the plan does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        through: Option<String>,
    },
    /// Sends a message to each device of these users.
    ToDevice {
        /// The recipients.
        users: Vec<u32>,
        /// The host of the instance that the client talks to; the writer itself if the plan does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        through: Option<String>,
    },
    /// Keeps a sync open, so that the user is there. It ends with the process that serves it.
    Sync {
        /// Who.
        user: u32,
        /// With which device; none if it is not known.
        device: Option<u32>,
        /// The host that serves it.
        host: String,
        /// For how long, in milliseconds. It may go on in the calm.
        for_ms: u64,
    },
    /// Persists an event outside its room's graph, as fetching a single event over federation does.
    Outlier {
        /// The room.
        room: u32,
        /// The event's number. A second one of that number is refused.
        event: u32,
    },
    /// Makes such an event an ordinary one.
    ExOutlier {
        /// The room.
        room: u32,
        /// The event's number.
        event: u32,
    },
    /// Reads something through an instance.
    Read {
        /// The host of the instance.
        host: String,
        /// What is read.
        what: Reading,
    },
    /// Reads something through an instance, changes it through the same instance, whoever has to write it, and reads
    /// it again as soon as that is told to be done.
    WriteThenRead {
        /// The host of the instance.
        host: String,
        /// What is changed.
        what: Writing,
    },
    /// Lets an instance hear from a remote server that was thought to be down.
    ServerUp {
        /// The server.
        server: u32,
        /// The host of the instance.
        host: String,
    },
    /// Begins or stops typing.
    Typing {
        /// The room.
        room: u32,
        /// The user.
        user: u32,
        /// Whether the user types from now on.
        typing: bool,
        /// When the user no longer counts as typing, in milliseconds from now, if nothing else is heard.
        timeout_ms: u64,
    },
}

/// What a user reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reading {
    /// The current state of a room.
    State {
        /// The room.
        room: u32,
    },
    /// An event that is or was an outlier.
    Event {
        /// Its number.
        event: u32,
    },
    /// The receipts in a room.
    Receipts {
        /// The room.
        room: u32,
    },
    /// Account data.
    AccountData {
        /// Whose.
        user: u32,
        /// Of which room; none if of the whole account.
        room: Option<u32>,
    },
}

/// What a user changes and looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Writing {
    /// An entry of a room's state, by an event.
    State {
        /// The room.
        room: u32,
    },
    /// Account data.
    AccountData {
        /// Whose.
        user: u32,
        /// Of which room; none if of the whole account.
        room: Option<u32>,
        /// Which of the user's data.
        datum: u32,
    },
}

impl OperationKind {
    /// The host that it names, if it does not fall to the writer of something.
    pub fn host(&self) -> Option<&str> {
        match self {
            OperationKind::Read { host, .. }
            | OperationKind::Sync { host, .. }
            | OperationKind::ServerUp { host, .. }
            | OperationKind::WriteThenRead { host, .. } => Some(host),
            OperationKind::Receipt { through, .. } | OperationKind::ToDevice { through, .. } => through.as_deref(),
            _ => None,
        }
    }

    /// How many rows of `events` it writes.
    pub fn rows(&self) -> u32 {
        match self {
            OperationKind::Send { .. } | OperationKind::Outlier { .. } | OperationKind::ExOutlier { .. } => 1,
            OperationKind::WriteThenRead { what: Writing::State { .. }, .. } => 2,
            OperationKind::StateBurst { rows, .. } => *rows,
            OperationKind::SendBurst { events, .. } => *events,
            OperationKind::AccountData { .. }
            | OperationKind::AccountDataBurst { .. }
            | OperationKind::Receipt { .. }
            | OperationKind::ToDevice { .. }
            | OperationKind::Sync { .. }
            | OperationKind::ServerUp { .. }
            | OperationKind::Read { .. }
            | OperationKind::WriteThenRead { what: Writing::AccountData { .. }, .. }
            | OperationKind::Typing { .. } => 0,
        }
    }
}
