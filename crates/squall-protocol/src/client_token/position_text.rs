//! The text of positions in streams with several writers, as Synapse writes it in tokens.
//!
//! | text | meaning |
//! |---|---|
//! | `s56` | in rooms: every writer is complete up to 56 |
//! | `56` | the same in receipts |
//! | `m56~2.58~3.59` | the same, and instance 2 up to 58, instance 3 up to 59 |
//! | `t47-56` | a place in a room's history, at depth 47; no client can sync from it |
//!
//! `m56~` is read as `m56`: a version of Synapse wrote it, and clients still have such tokens (Synapse #17438).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use thiserror::Error;

use crate::excerpt::truncate;
use crate::instance_map::{InstanceId, InstanceMap};
use crate::{InstanceName, Token, VectorPosition};

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PositionError {
    /// It does not begin like a position.
    #[error("it begins neither with a digit nor with a letter that positions begin with")]
    Unknown,
    /// A number is missing, negative, too large, or written otherwise than in ASCII digits.
    #[error("{0:?} is not a number from 0 to 9223372036854775807")]
    Number(String),
    /// A writer's part is not `ID.POSITION`.
    #[error("{0:?} is not a writer's number and its position with a dot between")]
    Writer(String),
    /// A writer has two positions.
    #[error("writer {} has two positions", .0.0)]
    Twice(InstanceId),
    /// No instance has this number. The token is from another deployment, or names a writer that was added after this
    /// instance had started.
    #[error("no instance has the number {}", .0.0)]
    UnknownInstance(InstanceId),
}

/// A position in the events of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomPosition {
    /// `s` and `m`: a position in the order in which events were persisted.
    Live(VectorPosition),
    /// `t`: a place in the order of a room's history.
    Historical {
        /// The depth in the room's graph.
        depth: i64,
        /// The event's token.
        stream: Token,
    },
}

impl RoomPosition {
    /// Parses any of the three forms.
    ///
    /// # Errors
    /// The text has none of these forms.
    pub fn parse(text: &str, instances: &InstanceMap) -> Result<Self, PositionError> {
        match text.split_at_checked(1) {
            Some(("s", min)) => Ok(RoomPosition::Live(VectorPosition::new(Token(number(min)?), BTreeMap::new()))),
            Some(("m", vector)) => parse_vector(vector, instances).map(RoomPosition::Live),
            Some(("t", place)) => {
                let (depth, stream) = place.split_once('-').ok_or_else(|| PositionError::Number(shortened(place)))?;
                Ok(RoomPosition::Historical { depth: number(depth)?, stream: Token(number(stream)?) })
            }
            _ => Err(PositionError::Unknown),
        }
    }

    /// Returns the text that [`parse`](Self::parse) reads.
    ///
    /// # Panics
    /// If a writer that is ahead has no number.
    pub fn render(&self, instances: &InstanceMap) -> String {
        match self {
            RoomPosition::Live(position) => render("s", position, instances),
            RoomPosition::Historical { depth, stream } => format!("t{depth}-{stream}"),
        }
    }
}

/// Parses a position in receipts: a number, or the form with `m`.
pub(super) fn parse_receipts(text: &str, instances: &InstanceMap) -> Result<VectorPosition, PositionError> {
    match text.split_at_checked(1) {
        Some(("m", vector)) => parse_vector(vector, instances),
        Some((first, _)) if first.as_bytes()[0].is_ascii_digit() => {
            Ok(VectorPosition::new(Token(number(text)?), BTreeMap::new()))
        }
        _ => Err(PositionError::Unknown),
    }
}

/// Returns the text of a position in receipts.
pub(super) fn render_receipts(position: &VectorPosition, instances: &InstanceMap) -> String {
    render("", position, instances)
}

/// Parses a number of a token.
pub(super) fn number(text: &str) -> Result<i64, PositionError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| PositionError::Number(shortened(text)))
}

/// Returns `text`, cut to a length that fits into an error.
pub(super) fn shortened(text: &str) -> String {
    truncate(text, 60)
}

fn parse_vector(vector: &str, instances: &InstanceMap) -> Result<VectorPosition, PositionError> {
    let mut parts = vector.split('~');
    let min = Token(number(parts.next().unwrap_or_default())?);
    let mut ahead: BTreeMap<InstanceName, Token> = BTreeMap::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let (id, position) = part.split_once('.').ok_or_else(|| PositionError::Writer(shortened(part)))?;
        let id = InstanceId(number(id)?);
        let writer = instances.name(id).ok_or(PositionError::UnknownInstance(id))?;
        if ahead.insert(writer.clone(), Token(number(position)?)).is_some() {
            return Err(PositionError::Twice(id));
        }
    }
    Ok(VectorPosition::new(min, ahead))
}

fn render(prefix: &str, position: &VectorPosition, instances: &InstanceMap) -> String {
    if position.ahead().is_empty() {
        return format!("{prefix}{}", position.min());
    }
    let id = |writer| instances.id(writer).expect("every instance enters all writers in the map when it starts");
    let ahead: BTreeMap<InstanceId, Token> =
        position.ahead().iter().map(|(writer, token)| (id(writer), *token)).collect();
    let mut text = format!("m{}", position.min());
    for (InstanceId(id), token) in ahead {
        let _ = write!(text, "~{id}.{token}");
    }
    text
}
