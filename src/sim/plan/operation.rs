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

impl OperationKind {
    /// How many rows of `events` it writes.
    pub fn rows(&self) -> u32 {
        match self {
            OperationKind::Send { .. } => 1,
            OperationKind::StateBurst { rows, .. } => *rows,
            OperationKind::SendBurst { events, .. } => *events,
            OperationKind::Typing { .. } => 0,
        }
    }
}
