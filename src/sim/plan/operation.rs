//! Operations: the actions of users.
//!
//! Rooms and users are numbers here; the workload gives them names. An operation may fail, as a request to a server that is
//! down does.

use serde::{Deserialize, Serialize};

use super::{DEVICES, STORM_MS_MAX};
use crate::presence::PresenceState;

/// The largest number of rows that one operation writes.
const BURST_ROWS_MAX: u64 = 100_000;
/// The longest type of account data, in bytes.
const TYPE_BYTES_MAX: u64 = 1_000_000;

/// An action of a user at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// The time, in simulated milliseconds since the start.
    pub at_ms: u64,
    /// The action.
    pub kind: OperationKind,
    /// The key of its event ids and of its request's draws; its place in the list, from 0, by default. A plan without some
    /// of its operations gives the ids of the others, so that they do what they did before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<usize>,
}

impl Operation {
    /// Creates an operation whose id is its place in the list.
    pub fn new(at_ms: u64, kind: OperationKind) -> Self {
        Operation { at_ms, kind, id: None }
    }
}

/// An action of a user.
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
        /// The number of `state` rows.
        rows: u32,
        /// The number of tokens that the rows are spread over.
        tokens: u32,
    },
    /// Persists many messages to a room in one transaction, as catching up over federation does.
    SendBurst {
        /// The room.
        room: u32,
        /// The number of messages, each with a token of its own.
        events: u32,
    },
    /// Changes account data.
    AccountData {
        /// The user.
        user: u32,
        /// The room; none for data of the whole account.
        room: Option<u32>,
        /// The number of the datum.
        datum: u32,
        /// The least length of its type, in bytes. A line holds 16 384.
        type_bytes: u32,
    },
    /// Changes many account data at once, as a client does that has been offline.
    AccountDataBurst {
        /// The user.
        user: u32,
        /// The number of data of the account.
        of_account: u32,
        /// The number of data of the room numbered 0.
        of_room: u32,
    },
    /// Reads up to the newest message of a room.
    Receipt {
        /// The user.
        user: u32,
        /// The room.
        room: u32,
        /// The host that the client sends its request to; the writer itself by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        through: Option<String>,
    },
    /// Reads up to the newest message of several rooms at once. The instance shares them out among their writers.
    Receipts {
        /// The user.
        user: u32,
        /// The rooms.
        rooms: Vec<u32>,
        /// The host that the client sends its request to.
        host: String,
    },
    /// Sends a message to each device of these users.
    ToDevice {
        /// The recipients.
        users: Vec<u32>,
        /// The host that the client sends its request to; the writer itself by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        through: Option<String>,
    },
    /// Keeps a sync open, so that the user is online. It ends with the process that serves it.
    Sync {
        /// The user.
        user: u32,
        /// The device; none if it is not known.
        device: Option<u32>,
        /// The host that serves it.
        host: String,
        /// The length of the sync, in milliseconds. It may go on in the calm.
        for_ms: u64,
    },
    /// Sets the presence of a user's device.
    SetPresence {
        /// The user.
        user: u32,
        /// The device; none if it is not known.
        device: Option<u32>,
        /// The state.
        state: PresenceState,
        /// The number of the status message; none for no message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u32>,
        /// True if the request comes with a sync: it leaves the message as it is, and a busy device busy.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_sync: bool,
        /// The host that the client sends its request to; the writer itself by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        through: Option<String>,
    },
    /// Persists an event outside its room's graph, as fetching a single event over federation does.
    Outlier {
        /// The room.
        room: u32,
        /// The event's number. A second event with that number is refused.
        event: u32,
    },
    /// Makes such an event an ordinary one.
    ExOutlier {
        /// The room.
        room: u32,
        /// The event's number.
        event: u32,
    },
    /// Reads a value from an instance.
    Read {
        /// The host of the instance.
        host: String,
        /// The value.
        what: Reading,
    },
    /// Reads a value from an instance, changes it through the same instance, and reads it again once the change is
    /// acknowledged. The instance forwards the change to the writer.
    WriteThenRead {
        /// The host of the instance.
        host: String,
        /// The value.
        what: Writing,
        /// True if the same event or message is sent twice at once, as by a client that has not heard of the first. Each
        /// request has a transaction id of its own. Only such changes have one effect then.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        twice: bool,
    },
    /// Makes an instance hear from a remote server that was considered down.
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
        /// True if the user begins to type.
        typing: bool,
        /// The time after which the user no longer counts as typing, in milliseconds.
        timeout_ms: u64,
    },
}

/// A value that a user reads.
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
        /// The user.
        user: u32,
        /// The room; none for data of the whole account.
        room: Option<u32>,
    },
}

/// A value that a user changes and reads again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Writing {
    /// An entry of a room's state, by an event.
    State {
        /// The room.
        room: u32,
    },
    /// An event that is persisted as an outlier, and then as an ordinary event with its change of state.
    FormerOutlier {
        /// The room.
        room: u32,
    },
    /// Account data.
    AccountData {
        /// The user.
        user: u32,
        /// The room; none for data of the whole account.
        room: Option<u32>,
        /// The number of the datum.
        datum: u32,
    },
    /// A receipt.
    Receipt {
        /// The user, who has no other receipts in the room.
        user: u32,
        /// The room.
        room: u32,
    },
    /// A message to a device.
    ToDevice {
        /// The user, whose device does not sync.
        user: u32,
    },
    /// A presence with a status message.
    Presence {
        /// The user, whose presence nothing else changes.
        user: u32,
    },
    /// Typing, for a minute.
    Typing {
        /// The user, who does not type again.
        user: u32,
        /// The room.
        room: u32,
    },
}

impl OperationKind {
    /// Returns the host that carries it out, if the plan names one; otherwise a writer does.
    pub fn host(&self) -> Option<&str> {
        match self {
            OperationKind::Read { host, .. }
            | OperationKind::Receipts { host, .. }
            | OperationKind::Sync { host, .. }
            | OperationKind::ServerUp { host, .. }
            | OperationKind::WriteThenRead { host, .. } => Some(host),
            OperationKind::Receipt { through, .. }
            | OperationKind::ToDevice { through, .. }
            | OperationKind::SetPresence { through, .. } => through.as_deref(),
            _ => None,
        }
    }

    /// Returns the name of its kind.
    pub fn name(&self) -> &'static str {
        match self {
            OperationKind::Send { .. } => "a message",
            OperationKind::StateBurst { .. } => "much state",
            OperationKind::SendBurst { .. } => "many messages",
            OperationKind::AccountData { .. } => "account data",
            OperationKind::AccountDataBurst { .. } => "many account data",
            OperationKind::Receipt { .. } => "a receipt",
            OperationKind::Receipts { .. } => "receipts",
            OperationKind::ToDevice { .. } => "a message to devices",
            OperationKind::Sync { .. } => "a sync",
            OperationKind::SetPresence { .. } => "presence",
            OperationKind::Outlier { .. } => "an outlier",
            OperationKind::ExOutlier { .. } => "a former outlier",
            OperationKind::Read { .. } => "a read",
            OperationKind::WriteThenRead { what: Writing::State { .. }, .. } => "state",
            OperationKind::WriteThenRead { what: Writing::FormerOutlier { .. }, .. } => "an outlier sent again",
            OperationKind::WriteThenRead { what: Writing::AccountData { .. }, .. } => "account data",
            OperationKind::WriteThenRead { what: Writing::Receipt { .. }, .. } => "a receipt",
            OperationKind::WriteThenRead { what: Writing::ToDevice { .. }, .. } => "a message to devices",
            OperationKind::WriteThenRead { what: Writing::Presence { .. }, .. } => "presence",
            OperationKind::WriteThenRead { what: Writing::Typing { .. }, .. } => "typing",
            OperationKind::ServerUp { .. } => "a remote server",
            OperationKind::Typing { .. } => "typing",
        }
    }

    /// Returns the number of rows of `events` that it writes.
    pub fn rows(&self) -> u32 {
        match self {
            OperationKind::Send { .. } | OperationKind::Outlier { .. } | OperationKind::ExOutlier { .. } => 1,
            OperationKind::WriteThenRead { what: Writing::State { .. }, .. } => 2,
            OperationKind::WriteThenRead { what: Writing::FormerOutlier { .. }, .. } => 3,
            OperationKind::StateBurst { rows, .. } => *rows,
            OperationKind::SendBurst { events, .. } => *events,
            OperationKind::AccountData { .. }
            | OperationKind::AccountDataBurst { .. }
            | OperationKind::Receipt { .. }
            | OperationKind::Receipts { .. }
            | OperationKind::ToDevice { .. }
            | OperationKind::Sync { .. }
            | OperationKind::SetPresence { .. }
            | OperationKind::ServerUp { .. }
            | OperationKind::Read { .. }
            | OperationKind::WriteThenRead { .. }
            | OperationKind::Typing { .. } => 0,
        }
    }

    /// Returns the most rows that it writes to one stream.
    pub(crate) fn rows_of_a_stream(&self) -> u64 {
        match self {
            OperationKind::ToDevice { .. }
            | OperationKind::AccountDataBurst { .. }
            | OperationKind::Receipts { .. } => self.payloads(),
            _ => u64::from(self.rows().max(1)),
        }
    }

    /// Returns each amount of the operation that takes memory or time, with its greatest value.
    pub(super) fn amounts(&self) -> Vec<(u64, u64)> {
        match *self {
            OperationKind::StateBurst { rows: count, .. } | OperationKind::SendBurst { events: count, .. } => {
                vec![(count.into(), BURST_ROWS_MAX)]
            }
            OperationKind::AccountDataBurst { of_account, of_room, .. } => {
                vec![(of_account.into(), BURST_ROWS_MAX), (of_room.into(), BURST_ROWS_MAX)]
            }
            OperationKind::AccountData { type_bytes, .. } => vec![(type_bytes.into(), TYPE_BYTES_MAX)],
            OperationKind::Sync { for_ms, .. } => vec![(for_ms, STORM_MS_MAX)],
            _ => Vec::new(),
        }
    }

    /// Returns the greatest number of rows of any stream that it writes on one instance.
    pub fn payloads(&self) -> u64 {
        match self {
            OperationKind::ToDevice { users, .. } => users.len() as u64 * u64::from(DEVICES),
            OperationKind::AccountDataBurst { of_account, of_room, .. } => u64::from(of_account + of_room),
            OperationKind::Receipts { rooms, .. } => rooms.len() as u64,
            // Some rows of events come with a row of `caches`.
            _ => 2 * u64::from(self.rows().max(1)),
        }
    }
}
