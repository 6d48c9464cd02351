//! `/sync`: what is new for a client, on any instance.
//!
//! This is where users see a row, or miss it. A client brings the token of its last answer and gets everything that was
//! committed since; the token it is given says up to where that is. The order of things makes it whole:
//!
//! 1. The client's token may come from an instance that is further than this one. This one waits until it has caught up,
//!    and no longer than a while: then whatever is still behind stays out of the answer, and the token where it was.
//! 2. It takes the positions of all streams, each per writer: nothing at or below a position can still commit (see
//!    [`IdState`](crate::store::id_state::IdState)), and a slow writer holds back nobody else's rows.
//! 3. Then it reads the database, from the client's token up to those positions. A position that can be *inferred* will
//!    do, unlike for the rows that replication carries: here nothing has to have arrived, it only has to be committed.
//!    That each step comes after the one before is all that is needed.
//! 4. If there is nothing, it waits for a position to move, and begins again from where it has looked.
//!
//! So the answer has everything in `(since, next]` and nothing else, whoever serves it. (Synapse #14158: a token ahead
//! of what was read loses rows.)

mod handler;
mod notifier;
mod position_text;
mod read;
mod token;
mod typing;

use thiserror::Error;

pub use handler::{SINCE_WAIT_MAX, SyncHandler};
pub use notifier::Notifier;
pub use position_text::{PositionError, RoomPosition};
pub use token::{Others, SyncToken, TokenError};
pub use typing::{TypingNews, TypingPosition};

use crate::protocol::Token;
use crate::store::DatabaseError;
use crate::store::account_data::Datum;
use crate::store::to_device::Message;
use crate::streams::{PresenceRow, ReceiptsRow};

/// What is new for a client, each kind in the order of its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncResponse {
    /// The token to come back with: all of this is at or below it.
    pub next_batch: String,
    /// What was read.
    pub news: News,
}

/// What is new for a client.
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
    /// Who is typing.
    pub typing: TypingNews,
}

/// An event as a client gets to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    /// The event.
    pub event_id: String,
    /// Its room.
    pub room_id: String,
}

impl News {
    /// Whether there is nothing in it.
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

/// Why a client got no answer.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The client's token cannot be understood. It will not get better: the client has to begin anew.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The database failed. The client may try again with the same token.
    #[error("cannot read what is new: {0}")]
    Database(#[from] DatabaseError),
}
