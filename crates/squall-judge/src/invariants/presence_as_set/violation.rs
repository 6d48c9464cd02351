//! The evidence that a user's presence is not what their devices make it.

use serde::Serialize;
use thiserror::Error;

use squall_protocol::Token;

/// A presence that does not follow from the states of the user's devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A row has a state that the user's devices cannot give.
    #[error("{user} is {state} by token {token}, and their devices make them {possible}")]
    WrongState { user: String, token: Token, state: String, possible: String },
    /// A row has another status message than the client has set.
    #[error("{user} has the status {status:?} by token {token}, and set {expected:?}")]
    WrongStatus { user: String, token: Token, status: Option<String>, expected: Option<String> },
    /// A request to set a presence was acknowledged, and the database does not have it.
    #[error("a request of {user} was acknowledged, and the database has {state}; their devices make them {possible}")]
    NotKept { user: String, state: String, possible: String },
    /// A user's state did not change at its time.
    #[error("{user} is still {state}; for {late_ms} ms their devices have made them {possible}")]
    Late { user: String, state: String, possible: String, late_ms: u64 },
    /// A user's state is wrong, long into the calm.
    #[error("{user} is {state} at the end, and their devices make them {possible}")]
    WrongAtEnd { user: String, state: String, possible: String },
}
