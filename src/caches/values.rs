//! The cached values, each with the highest token it reflects.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::store::current_state::StateEntry;
use squall_protocol::Token;
use squall_protocol::rows::ReceiptsRow;
use squall_protocol::rows::events::EventRow;

/// A value and its version.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The highest token of a row that it reflects; `None` if there was never a row about it.
    pub version: Option<Token>,
}

/// The current state of a room: events by type and state key.
pub type RoomState = BTreeMap<(String, String), String>;
/// The receipts in a room, in the order of their tokens.
pub type Receipts = Vec<ReceiptsRow>;
/// A user's account data: contents by type.
pub type AccountData = BTreeMap<String, Value>;

impl From<Vec<StateEntry>> for Versioned<RoomState> {
    fn from(entries: Vec<StateEntry>) -> Self {
        let version = entries.iter().map(|entry| entry.token).max();
        let present = entries.into_iter().filter_map(|entry| Some(((entry.kind, entry.state_key), entry.event_id?)));
        Versioned { value: present.collect(), version }
    }
}

impl From<Option<(Token, EventRow)>> for Versioned<Option<EventRow>> {
    fn from(event: Option<(Token, EventRow)>) -> Self {
        let (version, value) = event.unzip();
        Versioned { value, version }
    }
}

impl From<Vec<(Token, ReceiptsRow)>> for Versioned<Receipts> {
    fn from(receipts: Vec<(Token, ReceiptsRow)>) -> Self {
        let version = receipts.iter().map(|(token, _)| *token).max();
        Versioned { value: receipts.into_iter().map(|(_, receipt)| receipt).collect(), version }
    }
}

impl From<Vec<(Token, String, Value)>> for Versioned<AccountData> {
    fn from(data: Vec<(Token, String, Value)>) -> Self {
        let version = data.iter().map(|(token, ..)| *token).max();
        Versioned { value: data.into_iter().map(|(_, kind, content)| (kind, content)).collect(), version }
    }
}
