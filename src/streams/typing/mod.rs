//! `typing`: who is typing in which room.
//!
//! Held in memory by one instance, which numbers its changes anew at each start, above all that were before
//! ([`Token::beginning_of`](crate::protocol::Token::beginning_of)). A row holds everybody who is typing in a room, so only
//! the newest row of each room matters and the older ones are never kept. Followers ask the writer by HTTP for what they
//! missed.

mod handler;
mod stream;

use serde_json::{Value, json};

pub use handler::{OnChange, TypingHandler};
pub use stream::TypingStream;

/// The stream's name on the wire.
pub const NAME: &str = "typing";

/// Everybody who is typing in one room now; nobody if empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypingRow {
    /// The room.
    pub room_id: String,
    /// The users, in the order they began.
    pub user_ids: Vec<String>,
}

impl TypingRow {
    /// Understands `[room_id, [user_id, ...]]`.
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (room_id, user_ids) = serde::Deserialize::deserialize(row)?;
        Ok(TypingRow { room_id, user_ids })
    }

    /// `[room_id, [user_id, ...]]`.
    pub fn to_json(&self) -> Value {
        json!([self.room_id, self.user_ids])
    }
}
