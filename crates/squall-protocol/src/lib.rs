//! The replication protocol: commands, lines, rows, tokens and positions. Pure: no I/O, no clock.
//!
//! A command is one line of text: its name, a space, its arguments. Over TCP lines are delimited and limited
//! ([`LineDecoder`]) and flow in a fixed direction ([`Direction`]). Over Redis one line without its delimiter is one
//! payload, which [`Command::parse`] reads as it is.

#![forbid(unsafe_code)]

mod arguments;
pub mod cached;
pub mod client_token;
pub mod command;
pub mod commands;
pub mod delivery;
pub mod dialect;
pub mod direction;
mod error;
mod excerpt;
pub mod framing;
pub mod header;
pub mod instance_map;
pub mod json;
pub mod line;
pub mod names;
mod newer;
mod role;
pub mod rows;
mod vector_position;

pub use cached::Cached;
pub use client_token::{SyncToken, TypingNews, TypingPosition};
pub use command::Command;
pub use commands::{
    FederationAck, LockReleased, Position, Rdata, RdataHeader, SIGN_OF_LIFE_INTERVAL, SIGNS_OF_LIFE, UserIp, UserSync,
};
pub use delivery::Delivery;
pub use dialect::Dialect;
pub use direction::Direction;
pub use error::{LineBreak, ParseError, ParseErrorKind};
pub use excerpt::{Escaped, Quoted};
pub use framing::{Framing, PAYLOAD_BYTES_MAX};
pub use header::Header;
pub use instance_map::{InstanceId, InstanceMap};
pub use json::JsonError;
pub use line::{EncodeError, LINE_BYTES_MAX, LineDecoder, LineError, encode_line};
pub use names::{InstanceName, MASTER, StreamName, Token};
pub use newer::Newer;
pub use role::Role;
pub use rows::{Row, RowError, Updates};
pub use vector_position::VectorPosition;
