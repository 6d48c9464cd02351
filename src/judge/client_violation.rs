//! What a client saw, or did not see, that no client may.

use std::fmt;

use serde::Serialize;

use super::observation::Client;
use super::pending::Pending;
use crate::protocol::{InstanceName, StreamName, Token};

/// A promise to clients that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "a variant's fields are the words of its own sentence")]
pub enum ClientViolation {
    /// An answer lacks something that is after the client's token and not after the answer's.
    NotTold { client: Client, instance: InstanceName, stream: StreamName, token: Token, what: String },
    /// An answer has something that nobody committed, that is not between its tokens, or that comes out of order.
    ToldWrongly { client: Client, instance: InstanceName, stream: StreamName, token: Token, what: String },
    /// The calm is over, and a client has not come to where it must.
    StillBehind(Pending),
    /// The token of an answer is behind the one that the client came with.
    TokenWentBack { client: Client, instance: InstanceName, stream: StreamName, since: Token, next: Token },
    /// A row was committed at or below the position of its writer that a client had been given.
    CommittedBehindToken { stream: StreamName, writer: InstanceName, token: Token, given: Token },
}

impl ClientViolation {
    /// The name of the invariant that was violated.
    pub fn invariant(&self) -> &'static str {
        match self {
            ClientViolation::NotTold { .. } | ClientViolation::ToldWrongly { .. } | ClientViolation::StillBehind(_) => {
                "clients_miss_nothing"
            }
            ClientViolation::TokenWentBack { .. } | ClientViolation::CommittedBehindToken { .. } => {
                "tokens_never_go_back"
            }
        }
    }

    /// How it was violated, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            ClientViolation::NotTold { .. } => "not_told",
            ClientViolation::ToldWrongly { .. } => "told_wrongly",
            ClientViolation::StillBehind(_) => "still_behind",
            ClientViolation::TokenWentBack { .. } => "token_went_back",
            ClientViolation::CommittedBehindToken { .. } => "committed_behind_token",
        }
    }

    /// The stream it is about.
    pub fn stream(&self) -> &StreamName {
        match self {
            ClientViolation::NotTold { stream, .. }
            | ClientViolation::ToldWrongly { stream, .. }
            | ClientViolation::TokenWentBack { stream, .. }
            | ClientViolation::CommittedBehindToken { stream, .. } => stream,
            ClientViolation::StillBehind(pending) => &pending.feed.stream,
        }
    }
}

impl fmt::Display for ClientViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientViolation::NotTold { client, instance, stream, token, what } => {
                write!(f, "{client} was not told by {instance} of {what}, token {token} of {stream}")
            }
            ClientViolation::ToldWrongly { client, instance, stream, token, what } => {
                write!(f, "{client} was told by {instance} of {what}, token {token} of {stream}, ")?;
                f.write_str("which is not committed, not between the answer's tokens, or out of order")
            }
            ClientViolation::StillBehind(pending) => write!(f, "long after the storm, {pending}"),
            ClientViolation::TokenWentBack { client, instance, stream, since, next } => {
                write!(f, "{client} came to {instance} with position {since} of {stream} and was sent back to {next}")
            }
            ClientViolation::CommittedBehindToken { stream, writer, token, given } => {
                write!(f, "{writer} committed token {token} of {stream}, where clients have been given {given}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Violation;

    #[test]
    fn in_json_and_in_fingerprints_it_is_a_violation_like_any_other() {
        let (stream, writer) = ("events".into(), "writer1".into());
        let behind = ClientViolation::CommittedBehindToken { stream, writer, token: Token(7), given: Token(9) };
        let violation = Violation::Client(behind);
        assert_eq!(violation.fingerprint(), "tokens_never_go_back/events/committed_behind_token");
        assert_eq!(violation.to_string(), "writer1 committed token 7 of events, where clients have been given 9");
        let json = serde_json::to_value(&violation).unwrap();
        assert_eq!((json["kind"].as_str(), json["given"].as_i64()), (Some("committed_behind_token"), Some(9)));
    }
}
