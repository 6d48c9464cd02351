//! What is replicated: one file per stream, with its row type, its promise, and where its rows come from.

pub mod account_data;
pub mod caches;
pub mod database;
pub mod events;
pub mod keeper;
pub mod presence;
pub mod receipts;
pub mod row;
pub mod stream;
pub mod to_device;
pub mod typing;

use std::error::Error;

pub use account_data::AccountDataRow;
pub use caches::CachesRow;
pub use database::{DatabaseStream, Source};
pub use events::EventsRow;
pub use keeper::{Keeper, Keepers};
pub use presence::PresenceRow;
pub use receipts::ReceiptsRow;
pub use row::{Json, Row, RowError};
pub use stream::Stream;
pub use to_device::ToDeviceRow;
pub use typing::TypingRow;

use crate::env::LocalBoxFuture;
use crate::protocol::{InstanceName, StreamName, Token};

/// How many rows an update function aims to return at once. It may return more to keep a token whole.
pub const ROWS_TARGET: usize = 100;

/// Every stream whose rows lie in the database.
pub const SOURCES: [Source; 6] =
    [events::SOURCE, receipts::SOURCE, to_device::SOURCE, account_data::SOURCE, presence::SOURCE, caches::SOURCE];

/// The name of every stream that this process knows.
pub const NAMES: [&str; 7] =
    [account_data::NAME, caches::NAME, events::NAME, presence::NAME, receipts::NAME, to_device::NAME, typing::NAME];

/// What a follower may count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Every committed row, once per follower boot, in order, whole tokens at a time.
    Log,
    /// For each key (see [`Row::key`]) the last row up to the position; rows that were overwritten or removed before
    /// the follower asked may be missing.
    Keyed,
    /// For each key the last row up to the position, within one run of the writer, which every number tells
    /// ([`Token::run`](crate::protocol::Token::run)). With Synapse's writers, who number from 1 at every start, a position
    /// that goes back or a new connection tells of another run.
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

    /// The answer of a query for the rows up to `upto` that was limited to `rows_max`, where no two rows share a token.
    pub fn of_single_rows(rows: Vec<(Token, Row)>, upto: Token, rows_max: usize) -> Self {
        debug_assert!(rows.is_sorted_by(|one, next| one.0 < next.0));
        match rows.last() {
            Some((last, _)) if rows.len() >= rows_max => Updates { upto: *last, limited: *last < upto, rows },
            _ => Updates { rows, upto, limited: false },
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn updates(tokens: &[i64], upto: i64) -> (i64, bool) {
        let row = || Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "m.tag".into() });
        let rows = tokens.iter().map(|token| (Token(*token), row())).collect();
        let updates = Updates::of_single_rows(rows, Token(upto), 3);
        assert_eq!(updates.rows.len(), tokens.len());
        (updates.upto.0, updates.limited)
    }

    #[test]
    fn an_answer_at_the_limit_is_complete_up_to_its_last_row() {
        assert_eq!(updates(&[], 9), (9, false));
        assert_eq!(updates(&[4, 6], 9), (9, false));
        assert_eq!(updates(&[4, 6, 7], 9), (7, true));
        assert_eq!(updates(&[4, 6, 9], 9), (9, false), "nothing can be beyond it: asking again would bring nothing");
    }
}
