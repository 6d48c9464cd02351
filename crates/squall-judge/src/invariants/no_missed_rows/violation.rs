//! The evidence that a follower missed rows.

use serde::Serialize;
use thiserror::Error;

use crate::topology::FollowerKey;
use crate::violation::list;
use squall_protocol::Token;

/// Rows that a follower missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// The position passed committed rows that were not applied.
    #[error("{follower}: went from {from} to {to} without the rows of {}", list(.tokens))]
    Missed {
        #[serde(flatten)]
        follower: FollowerKey,
        tokens: Vec<Token>,
        from: Token,
        to: Token,
    },
    /// A follower of a stream in memory holds something that no process of the writer sent up to that position.
    #[error(
        "{follower}: at position {position} it holds [{}] for {room}, where the writer has [{}]",
        list(.held), list(.truth)
    )]
    WrongView {
        #[serde(flatten)]
        follower: FollowerKey,
        position: Token,
        room: String,
        held: Box<[String]>,
        truth: Box<[String]>,
    },
}
