//! Clients' tokens: where a client stands in every stream.
//!
//! A token is the positions of all streams, joined with `_`, in Synapse's order: rooms, presence, typing, receipts,
//! account data, push rules, messages to devices, device lists, groups, rooms whose state is no longer partial, and
//! whatever later versions add. Parts of streams that Squall does not have are `0`, or what they were when the token
//! came: a client that goes back to a server which has them loses nothing.
//!
//! Clients keep tokens for ever and bring them to any instance. So the text names writers by numbers that never change,
//! and a part that is missing at the end (a token of an older version) is read as `0`.

use std::sync::Arc;

use thiserror::Error;

use super::position_text::{self, PositionError, RoomPosition, shortened};
use super::typing::TypingPosition;
use crate::protocol::Token;
use crate::store::{InstanceMap, VectorPosition};

/// Between two parts of a token.
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

/// Where a client stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyncToken {
    /// Among the events of all rooms.
    pub events: VectorPosition,
    /// In `presence`.
    pub presence: Token,
    /// In `typing`.
    pub typing: TypingPosition,
    /// In `receipts`.
    pub receipts: VectorPosition,
    /// In `account_data`.
    pub account_data: Token,
    /// In `to_device`: messages up to here are acknowledged by whoever syncs from here.
    pub to_device: Token,
    /// The parts that mean nothing here.
    pub others: Others,
}

/// The parts of a token whose streams Squall does not have, as they came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Others {
    /// Push rules, which stand between the others; then the parts from device lists on.
    parts: Arc<[Box<str>]>,
}

impl Default for Others {
    fn default() -> Self {
        Others { parts: (0..PARTS.len() - 6).map(|_| Box::from("0")).collect() }
    }
}

/// Why text is not a token that one can sync from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// A part is no position of its stream.
    #[error("not a sync token: the {part} part is {text:?}, and {problem}")]
    Part {
        /// Which part.
        part: &'static str,
        /// The part, cut to a readable length.
        text: String,
        /// What is wrong with it.
        problem: PositionError,
    },
    /// The room part is a place in a room's history.
    #[error("not a sync token: {0:?} is a place in a room's history, for paginating and not for syncing")]
    Historical(String),
    /// A part that means nothing here is not of the characters that parts are made of.
    #[error("not a sync token: it has the part {0:?}, where letters, digits, dots, dashes and tildes may stand")]
    Characters(String),
}

impl SyncToken {
    /// Understands a token that a client brings.
    ///
    /// # Errors
    /// What is wrong with the first part that is.
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

    /// The token as clients keep it.
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

    /// Whether no part but `typing`, which has no order, is further than in `other`.
    pub fn is_within(&self, other: &SyncToken) -> bool {
        self.events.is_within(&other.events)
            && self.receipts.is_within(&other.receipts)
            && self.presence <= other.presence
            && self.account_data <= other.account_data
            && self.to_device <= other.to_device
    }

    /// The least token that is past both in every part; where `typing` stands, which has no order, `now` says. The
    /// parts that mean nothing here stay as they are.
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
