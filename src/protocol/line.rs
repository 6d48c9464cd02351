//! Lines over TCP: from commands to bytes, and from bytes to lines.
//!
//! A line is UTF-8 text that ends with `\n` and nothing else: a carriage return before it belongs to the line. Its
//! length is limited, so that one end cannot make the other hold any amount of memory. Synapse's sender logged an
//! over-long row and dropped it, which lost the row (Synapse #4748); [`encode_line`] returns it as an error, for the
//! caller to make up for.

use std::mem;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::command::{Command, LineBreak};

/// The longest line, in bytes without its delimiter. Over TCP only: a Redis payload may be longer.
///
/// The `MAX_LENGTH` of Twisted's `LineOnlyReceiver`.
pub const LINE_BYTES_MAX: usize = 16_384;

/// What came is no line. The decoder goes on with the next one; a peer that speaks TCP is told, and cut off.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// More than [`LINE_BYTES_MAX`] bytes, whether or not the line has ended. Synapse's words, which a peer is told.
    #[error("Line length exceeded")]
    TooLong,
    /// Not UTF-8.
    #[error("line is not UTF-8 from byte {valid_up_to}")]
    NotUtf8 {
        /// How many bytes are.
        valid_up_to: usize,
    },
}

/// A command that cannot be sent. Nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// It would hold a line break.
    #[error(transparent)]
    LineBreak(#[from] LineBreak),
    /// It would be longer than [`LINE_BYTES_MAX`] or, over Redis, than [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX).
    #[error("{command} of {bytes} bytes is too long")]
    TooLong {
        /// The command's name.
        command: &'static str,
        /// The line's length without its delimiter.
        bytes: usize,
    },
}

/// A command's line with its delimiter.
///
/// # Errors
/// The line would break, or break the limit.
pub fn encode_line(command: &Command) -> Result<Bytes, EncodeError> {
    let mut line = command.to_line()?;
    if line.len() > LINE_BYTES_MAX {
        return Err(EncodeError::TooLong { command: command.name(), bytes: line.len() });
    }
    line.push('\n');
    Ok(line.into())
}

/// Cuts a stream of bytes into lines.
///
/// Take lines until there are none after each [`extend`](LineDecoder::extend): then it holds at most
/// [`LINE_BYTES_MAX`] bytes, whatever the peer sends.
#[derive(Debug, Default)]
pub struct LineDecoder {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no delimiter, so that each byte is looked at once.
    scanned: usize,
    /// The line so far was too long and has been reported: what is left of it is dropped.
    dropping: bool,
}

impl LineDecoder {
    /// Takes what was received.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line without its delimiter, or why it is none; `None` until more is received.
    ///
    /// Blank lines are skipped (Synapse #14449). How the bytes were cut into pieces makes no difference.
    pub fn next_line(&mut self) -> Option<Result<String, LineError>> {
        while let Some(line) = self.next_delimited() {
            if mem::take(&mut self.dropping) {
                continue;
            }
            if line.len() > LINE_BYTES_MAX {
                return Some(Err(LineError::TooLong));
            }
            if line.iter().all(is_blank) {
                continue;
            }
            return Some(match str::from_utf8(&line) {
                Ok(line) => Ok(line.to_owned()),
                Err(error) => Err(LineError::NotUtf8 { valid_up_to: error.valid_up_to() }),
            });
        }
        if self.buffer.len() > LINE_BYTES_MAX {
            self.buffer.clear();
            self.scanned = 0;
            return (!mem::replace(&mut self.dropping, true)).then_some(Err(LineError::TooLong));
        }
        None
    }

    /// Whether part of a line has come, and its end has not.
    pub fn is_partial(&self) -> bool {
        self.dropping || !self.buffer.is_empty()
    }

    /// Splits off what stands before the next delimiter.
    fn next_delimited(&mut self) -> Option<BytesMut> {
        let Some(length) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.scanned + length + 1);
        line.truncate(line.len() - 1);
        self.scanned = 0;
        Some(line)
    }
}

/// White space as Python's `bytes.strip` knows it, which Synapse asks whether a line is blank.
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
