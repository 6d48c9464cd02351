//! One payload: as it arrives, and as the rules receive it.

use serde::Serialize;
use strum::Display;
use thiserror::Error;

use super::bounds::{Excess, PAYLOAD_BYTES_MAX};
use crate::observation::SimTime;
use squall_protocol::{Command, Dialect, ParseError};

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
