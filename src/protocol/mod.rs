//! The replication protocol: commands and lines. Pure: no I/O, no clock.
//!
//! A command is one line of text: its name, a space, its arguments. Over TCP lines are delimited and limited
//! ([`LineDecoder`]) and flow in a fixed direction ([`Direction`]); over Redis one line without its delimiter is one
//! payload, which [`Command::parse`] reads as it is.

mod arguments;
pub mod command;
pub mod commands;
pub mod dialect;
pub mod direction;
mod error;
pub mod framing;
pub mod header;
pub mod json;
pub mod line;
pub mod names;

pub use command::{Command, LineBreak};
pub use commands::{
    FederationAck, LockReleased, Position, Rdata, RdataHeader, SIGN_OF_LIFE_INTERVAL, SIGNS_OF_LIFE, UserIp, UserSync,
};
pub use dialect::Dialect;
pub use direction::Direction;
pub use error::{ParseError, ParseErrorKind};
pub use framing::{Framing, PAYLOAD_BYTES_MAX};
pub use header::Header;
pub use json::JsonError;
pub use line::{EncodeError, LINE_BYTES_MAX, LineDecoder, LineError, encode_line};
pub use names::{InstanceName, MASTER, StreamName, Token};
