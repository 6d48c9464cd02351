//! The answer to a sync.

use thiserror::Error;

use crate::store::DatabaseError;
use crate::store::account_data::Datum;
use crate::store::events::RoomEvent;
use crate::store::to_device::Message;
use squall_protocol::client_token::TokenError;
use squall_protocol::rows::{PresenceRow, ReceiptsRow};
use squall_protocol::{Token, TypingNews};

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncResponse {
    /// The token for the next sync: everything in this answer is at or below it.
    pub next_batch: String,
    /// The new rows.
    pub news: News,
}

/// The new rows for a client, each kind in the order of its tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// Events of all rooms.
    pub events: Vec<(Token, RoomEvent)>,
    /// Receipts of all rooms.
    pub receipts: Vec<(Token, ReceiptsRow)>,
    /// The user's own account data.
    pub account_data: Vec<(Token, Datum)>,
    /// Messages to the device.
    pub to_device: Vec<(Token, Message)>,
    /// The presence of users.
    pub presence: Vec<(Token, PresenceRow)>,
    /// The users who are typing.
    pub typing: TypingNews,
}

impl News {
    /// Returns true if there are no new rows.
    pub fn is_empty(&self) -> bool {
        let News { events, receipts, account_data, to_device, presence, typing } = self;
        events.is_empty()
            && receipts.is_empty()
            && account_data.is_empty()
            && to_device.is_empty()
            && presence.is_empty()
            && typing.is_empty()
    }
}

/// A sync that failed.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The client's token cannot be parsed. The client must start again without a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The database failed. The client may try again with the same token.
    #[error("cannot read the new rows, try again with the same token: {0}")]
    Database(#[from] DatabaseError),
}
