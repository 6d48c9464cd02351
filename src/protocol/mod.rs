//! The replication protocol: commands and lines. Pure: no I/O, no clock.
//!
//! A command is one line of text: its name, a space, its arguments. Over TCP lines are delimited and limited
//! and flow in a fixed direction; over Redis one line without its delimiter is one
//! payload, which [`Command::parse`] reads as it is.

mod arguments;
pub mod command;
pub mod commands;
mod error;
pub mod json;
pub mod names;

pub use command::{Command, LineBreak};
pub use commands::{FederationAck, LockReleased, Position, Rdata, UserIp, UserSync};
pub use error::{ParseError, ParseErrorKind};
pub use json::JsonError;
pub use names::{InstanceName, StreamName, Token};
