//! What an audit is told, and what its rules make of it.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::bounds::{Excess, PAYLOAD_BYTES_MAX};
use crate::judge::observation::Moment;
use crate::protocol::{Command, Dialect, ParseError};

/// How the payloads travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Published on channels, by everybody to everybody.
    Redis,
    /// Lines that one end of one TCP connection sent.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Redis => "Redis",
            Transport::Tcp => "TCP",
        })
    }
}

/// One payload as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Where it stands in the recording, counted from 1; live, its number.
    pub line: u64,
    /// When it came, if that is known.
    pub at: Option<Moment>,
    /// The Redis channel, if it came on one.
    pub channel: Option<&'a str>,
    /// The line without a delimiter, if it is one.
    pub data: &'a [u8],
}

/// A payload that was read.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Where it stands in the recording.
    pub line: u64,
    /// When it came, if that is known. Never goes back.
    pub at: Option<Moment>,
    /// The Redis channel, if it came on one.
    pub channel: Option<&'a str>,
    /// How it travelled.
    pub transport: Transport,
    /// The grammar it was read by.
    pub dialect: Dialect,
    /// The command, or why it is none that can be judged.
    pub said: Result<&'a Command, &'a Unreadable>,
}

/// Why a payload is not judged any further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// It is no text.
    #[error("not UTF-8 from its byte {} on", .0 + 1)]
    NotUtf8(usize),
    /// It is so long that nobody looks into it.
    #[error("{0} bytes, where {PAYLOAD_BYTES_MAX} are the most that is looked into")]
    TooLong(usize),
    /// It is no command.
    #[error(transparent)]
    NotACommand(#[from] ParseError),
    /// It names what nobody here can remember.
    #[error("not followed: {0}")]
    Unfollowed(Excess),
}
