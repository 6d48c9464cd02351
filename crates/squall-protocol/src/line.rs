//! Lines over TCP: from commands to bytes, and from bytes to lines.
//!
//! A line is UTF-8 text that ends with `\n` and nothing else: a carriage return before it belongs to the line. Its length is
//! limited, so that one peer cannot make the other use unbounded memory. Synapse's sender logged a row that was too long and
//! dropped it, which lost the row (Synapse #4748). Here [`encode_line`] returns an error, and the caller handles it.

use std::io::BufRead;
use std::mem;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::command::Command;
use super::error::LineBreak;

/// The longest line, in bytes without its delimiter: the `MAX_LENGTH` of Twisted's `LineOnlyReceiver`. Over TCP only: a Redis
/// payload may be longer.
pub const LINE_BYTES_MAX: usize = 16_384;

/// Received bytes that are not a line. The decoder continues with the next one; over TCP the receiver sends the error to
/// the peer and closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// More than [`LINE_BYTES_MAX`] bytes, even if the line has not ended. The text is Synapse's, and is sent to the peer.
    #[error("Line length exceeded")]
    TooLong,
    /// The line is not UTF-8.
    #[error("line is not UTF-8 from byte {valid_up_to}")]
    NotUtf8 {
        /// The number of bytes that are.
        valid_up_to: usize,
    },
}

/// A command that cannot be sent. No part of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The command holds a line break.
    #[error(transparent)]
    LineBreak(#[from] LineBreak),
    /// The line is longer than [`LINE_BYTES_MAX`] or, over Redis, than [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX).
    #[error("{command} of {bytes} bytes is too long")]
    TooLong {
        /// The command's name.
        command: &'static str,
        /// The line's length without its delimiter.
        bytes: usize,
    },
}

/// Returns the line of a command with its delimiter.
///
/// # Errors
/// The command holds a line break or is too long.
pub fn encode_line(command: &Command) -> Result<Bytes, EncodeError> {
    let mut line = command.to_line()?;
    if line.len() > LINE_BYTES_MAX {
        return Err(EncodeError::TooLong { command: command.name(), bytes: line.len() });
    }
    line.push('\n');
    Ok(line.into())
}

/// A decoder that splits a stream of bytes into lines.
///
/// After each [`extend`](LineDecoder::extend), take lines until there are none. Then it never holds more than
/// [`LINE_BYTES_MAX`] bytes, for any input.
#[derive(Debug, Default)]
pub struct LineDecoder {
    buffer: BytesMut,
    /// The length of the part of the buffer whose lines were returned.
    taken: usize,
    /// The length of the part of the buffer that was searched for delimiters, so that each byte is checked once.
    scanned: usize,
    /// True if the current line was reported as too long: the rest of it is dropped.
    dropping: bool,
}

impl LineDecoder {
    /// Appends received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the buffer to which received bytes are appended, to read into it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns the next line as [`next_str`](Self::next_str) does, as a text of its own.
    pub fn next_line(&mut self) -> Option<Result<String, LineError>> {
        self.next_str().map(|line| line.map(str::to_owned))
    }

    /// Returns the next line without its delimiter, or its error; `None` until more is received.
    ///
    /// Blank lines are skipped (Synapse #14449). The result does not depend on the pieces in which the bytes arrived.
    pub fn next_str(&mut self) -> Option<Result<&str, LineError>> {
        while let Some(line) = self.next_delimited() {
            if mem::take(&mut self.dropping) {
                continue;
            }
            if line.len() > LINE_BYTES_MAX {
                return Some(Err(LineError::TooLong));
            }
            if self.buffer[line.clone()].iter().all(is_blank) {
                continue;
            }
            let line = str::from_utf8(&self.buffer[line]);
            return Some(line.map_err(|error| LineError::NotUtf8 { valid_up_to: error.valid_up_to() }));
        }
        self.buffer.advance(mem::take(&mut self.taken));
        self.scanned = self.buffer.len();
        if self.buffer.len() > LINE_BYTES_MAX {
            self.buffer.clear();
            self.scanned = 0;
            return (!mem::replace(&mut self.dropping, true)).then_some(Err(LineError::TooLong));
        }
        None
    }

    /// Returns true if part of a line was received, and its end was not.
    pub fn is_partial(&self) -> bool {
        self.dropping || self.taken < self.buffer.len()
    }

    /// Takes the bytes before the next delimiter. Returns their place in the buffer.
    fn next_delimited(&mut self) -> Option<Range<usize>> {
        let mut rest = &self.buffer[self.scanned..];
        self.scanned += rest.skip_until(b'\n').expect("bytes in memory can be read");
        let end = self.scanned.checked_sub(1).filter(|end| *end >= self.taken && self.buffer[*end] == b'\n')?;
        Some(mem::replace(&mut self.taken, self.scanned)..end)
    }
}

/// Returns true for the white space of Python's `bytes.strip`, by which Synapse recognises blank lines.
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
