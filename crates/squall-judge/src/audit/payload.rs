//! One payload: as it arrives, and as the rules receive it.

use serde::Serialize;
use strum::Display;
use thiserror::Error;

use super::bounds::{Excess, PAYLOAD_BYTES_MAX};
use super::connections::Shown;
use super::origin::Origin;
use crate::observation::SimTime;
use squall_protocol::{Command, Dialect, ParseError, Token};

/// The way payloads travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Display)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Published on channels, from every instance to every instance.
    Redis,
    /// Lines that one end of one TCP connection sent.
    #[strum(to_string = "TCP")]
    Tcp,
}

/// One payload, not parsed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Its line in the recording, counted from 1. For live traffic, its number.
    pub line: u64,
    /// The time at which it arrived, if that is known.
    pub at: Option<SimTime>,
    /// The Redis channel, if it came on one.
    pub channel: Option<&'a str>,
    /// Its bytes, without a delimiter.
    pub data: &'a [u8],
}

/// A payload that was parsed: the input of every rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParsedPayload<'a> {
    /// Its line in the recording.
    pub line: u64,
    /// The time at which it arrived, if that is known. Never goes back.
    pub at: Option<SimTime>,
    /// The Redis channel, if it came on one.
    pub channel: Option<&'a str>,
    /// The way it travelled.
    pub transport: Transport,
    /// The grammar it was parsed by.
    pub dialect: Dialect,
    /// The command, or the reason why there is none to judge.
    pub command: Result<&'a Command, &'a Unreadable>,
    /// The head of a row, if the payload is a row that cannot be read.
    pub unread: Option<&'a RowHead>,
    /// Its part in a connection.
    pub shown: Shown,
    /// True if it is a position, and its writer has just connected.
    pub just_connected: bool,
    /// The time of the first payload, or of the end of the last gap: from then on every payload was received. Payloads may
    /// have been received for longer, but a recording does not show the time of the subscription.
    pub receiving_since: Option<SimTime>,
}

/// The head of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowHead {
    /// The stream and its writer.
    pub origin: Origin,
    /// The token. A row inside a batch has none.
    pub token: Option<Token>,
}

impl ParsedPayload<'_> {
    /// Returns the head of the row, if the payload is one, also if the row itself cannot be read: it was sent, so it is
    /// not missing.
    pub(super) fn row(&self) -> Option<RowHead> {
        match self.command {
            Ok(Command::Rdata(rdata)) => Some(RowHead { origin: Origin::from(rdata), token: rdata.token }),
            Ok(_) => None,
            Err(_) => self.unread.cloned(),
        }
    }
}

/// The reason why a payload is judged no further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unreadable {
    /// It is not text.
    #[error("the payload is not UTF-8 from byte {} on", .0 + 1)]
    NotUtf8(usize),
    /// It is too long to be parsed.
    #[error("the payload has {0} bytes; more than {PAYLOAD_BYTES_MAX} are not parsed")]
    TooLong(usize),
    /// It is not a command.
    #[error(transparent)]
    NotACommand(#[from] ParseError),
    /// It names more than the audit remembers.
    #[error("the payload is not followed: {0}")]
    Unfollowed(Excess),
}
