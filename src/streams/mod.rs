//! What is replicated: one file per stream, with its row type, its promise, and where its rows come from.

pub mod events;
pub mod row;
pub mod stream;
pub mod typing;

use std::error::Error;

pub use events::EventsRow;
pub use row::{Row, RowError};
pub use stream::Stream;
pub use typing::TypingRow;

use crate::env::LocalBoxFuture;
use crate::protocol::{InstanceName, StreamName, Token};

/// How many rows an update function aims to return at once. It may return more to keep a token whole.
pub const ROWS_TARGET: usize = 100;

/// What a follower may count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Every committed row, once per follower boot, in order, whole tokens at a time.
    Log,
    /// For each key the last row up to the position, within one boot of the writer. A new boot is announced by a
    /// position that goes back, or by a new connection.
    Memory,
}

/// The answer to "which rows are there after `from`, up to `upto`?".
///
/// The contract (Synapse #7337, #7358): rows ascend by token, there is none outside `(from, upto]`, and **every** row
/// of every token up to the returned `upto` is among them. A limited answer has made progress: ask again from `upto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updates {
    /// The rows with their tokens, ascending.
    pub rows: Vec<(Token, Row)>,
    /// How far the answer is complete.
    pub upto: Token,
    /// Whether there may be more beyond `upto`.
    pub limited: bool,
}

impl Updates {
    /// The answer that there is nothing in the range that ends at `upto`.
    pub fn none(upto: Token) -> Self {
        Updates { rows: Vec::new(), upto, limited: false }
    }
}

/// Asks another instance for rows that only it has.
pub trait RemoteUpdates {
    /// `writer`'s rows of `stream` in `(from, upto]`, under the contract of [`Updates`].
    fn updates(
        &self,
        writer: &InstanceName,
        stream: &StreamName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>>;
}

/// Why rows could not be had. It may work the next time.
pub type UpdateError = Box<dyn Error>;
