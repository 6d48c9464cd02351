//! Sync tokens: the position of a client in every stream.
//!
//! A token is the positions of all streams, joined by `_`, in Synapse's order: rooms, presence, typing, receipts, account
//! data, push rules, messages to devices, device lists, groups, rooms whose state is no longer partial, and those that later
//! versions add. Parts of streams that Squall does not have are `0`, or as they were in the token that the client sent. So a
//! client that goes back to a server which has those streams loses nothing.
//!
//! Clients keep tokens for ever and send them to any instance. So the text names writers by numbers that never change, and a
//! part that is missing at the end (in the token of an older version) is read as `0`.

mod position_text;
mod typing_position;

use std::sync::Arc;

use thiserror::Error;

use position_text::shortened;
pub use position_text::{PositionError, RoomPosition};
pub use typing_position::{TypingNews, TypingPosition};

use super::instance_map::InstanceMap;
use super::{Token, VectorPosition};

/// The separator of the parts of a token.
const SEPARATOR: char = '_';

/// The names of the parts, in their order.
const PARTS: [&str; 10] = [
    "room",
    "presence",
    "typing",
    "receipts",
    "account data",
    "push rules",
    "to-device",
    "device lists",
    "groups",
    "un-partial-stated rooms",
];

/// The position of a client in every stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyncToken {
    /// The position in `events`.
    pub events: VectorPosition,
    /// The position in `presence`.
    pub presence: Token,
    /// The position in `typing`.
    pub typing: TypingPosition,
    /// The position in `receipts`.
    pub receipts: VectorPosition,
    /// The position in `account_data`.
    pub account_data: Token,
    /// The position in `to_device`. A client that syncs from here acknowledges the messages up to here.
    pub to_device: Token,
    /// The parts of other streams.
    pub others: Others,
}

/// The parts of a token whose streams Squall does not have, as the client sent them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Others {
    /// The part of push rules, and then the parts from device lists on.
    parts: Arc<[Box<str>]>,
}

impl Default for Others {
    fn default() -> Self {
        Others { parts: (0..PARTS.len() - 6).map(|_| Box::from("0")).collect() }
    }
}

/// A text from which no client can sync.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// A part is not a position of its stream.
    #[error("not a sync token: the {part} part is {text:?}, and {problem}")]
    Part {
        /// The name of the part.
        part: &'static str,
        /// The text of the part, cut to a readable length.
        text: String,
        /// The error in it.
        problem: PositionError,
    },
    /// The room part is a place in a room's history.
    #[error("not a sync token: {0:?} is a place in a room's history, for paginating and not for syncing")]
    Historical(String),
    /// A part of another stream has a character that no part may have.
    #[error("not a sync token: it has the part {0:?}; only letters, digits, dots, dashes and tildes are allowed")]
    Characters(String),
}

impl SyncToken {
    /// Parses the token of a client.
    ///
    /// # Errors
    /// A part is wrong; the error is about the first such part.
    pub fn parse(text: &str, instances: &InstanceMap) -> Result<Self, TokenError> {
        let mut parts = text.split(SEPARATOR);
        let mut names = PARTS.iter();
        let mut next = || {
            let part = names.next().copied().unwrap_or("last");
            let text = parts.next().unwrap_or("0");
            let wrong = move |problem| TokenError::Part { part, text: shortened(text), problem };
            (text, wrong)
        };

        let (room, wrong) = next();
        let events = match RoomPosition::parse(room, instances).map_err(wrong)? {
            RoomPosition::Live(position) => position,
            RoomPosition::Historical { .. } => return Err(TokenError::Historical(shortened(room))),
        };
        let mut plain = || {
            let (text, wrong) = next();
            position_text::number(text).map_err(wrong)
        };
        let presence = Token(plain()?);
        let typing = TypingPosition::from_number(plain()?);
        let (receipts, wrong) = next();
        let receipts = position_text::parse_receipts(receipts, instances).map_err(wrong)?;
        let (account_data, wrong) = next();
        let account_data = Token(position_text::number(account_data).map_err(wrong)?);
        let (push_rules, _) = next();
        let (to_device, wrong) = next();
        let to_device = Token(position_text::number(to_device).map_err(wrong)?);
        let from_device_lists: Vec<&str> = PARTS[7..].iter().map(|_| next().0).collect();
        let others = Others::parse(std::iter::once(push_rules).chain(from_device_lists).chain(parts))?;
        Ok(SyncToken { events, presence, typing, receipts, account_data, to_device, others })
    }

    /// Returns the text of the token.
    ///
    /// # Panics
    /// If a writer that is ahead has no number.
    pub fn render(&self, instances: &InstanceMap) -> String {
        let SyncToken { events, presence, typing, receipts, account_data, to_device, others } = self;
        let room = RoomPosition::Live(events.clone()).render(instances);
        let receipts = position_text::render_receipts(receipts, instances);
        let typing = typing.to_number();
        let (push_rules, rest) = others.parts.split_first().expect("push rules are always there");
        let mut text = format!("{room}_{presence}_{typing}_{receipts}_{account_data}_{push_rules}_{to_device}");
        for part in rest {
            text.push(SEPARATOR);
            text.push_str(part);
        }
        text
    }

    /// Returns true if no part is further than in `other`. `typing` is left out, because it has no order.
    pub fn is_within(&self, other: &SyncToken) -> bool {
        self.events.is_within(&other.events)
            && self.receipts.is_within(&other.receipts)
            && self.presence <= other.presence
            && self.account_data <= other.account_data
            && self.to_device <= other.to_device
    }

    /// Returns the least token that is past both in every part. `typing`, which has no order, is taken from `now`. The parts
    /// of other streams stay.
    pub fn merge(&self, now: &SyncToken) -> SyncToken {
        SyncToken {
            events: self.events.merge(&now.events),
            presence: self.presence.max(now.presence),
            typing: now.typing,
            receipts: self.receipts.merge(&now.receipts),
            account_data: self.account_data.max(now.account_data),
            to_device: self.to_device.max(now.to_device),
            others: self.others.clone(),
        }
    }
}

impl Others {
    fn parse<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Self, TokenError> {
        let may_stand = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '~');
        let part = |part: &'a str| match !part.is_empty() && part.chars().all(may_stand) {
            true => Ok(Box::from(part)),
            false => Err(TokenError::Characters(shortened(part))),
        };
        Ok(Others { parts: parts.map(part).collect::<Result<Vec<Box<str>>, _>>()?.into() })
    }
}

#[cfg(test)]
mod tests;
