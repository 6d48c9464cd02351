//! The bytes of a command on each transport.

use bytes::Bytes;

use super::command::Command;
use super::line::{EncodeError, encode_line};

/// The longest payload, in bytes. Redis carries up to 512 MiB, but no receiver must have to hold that much. Followers fetch a
/// row that is longer, as they do if it is too long for a line.
pub const PAYLOAD_BYTES_MAX: usize = 1_000_000;

/// The unit that a transport carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// TCP: lines that end with `\n` and have a maximum length.
    Lines,
    /// Redis: one payload per command, without delimiter and with a maximum length.
    Payloads,
}

impl Framing {
    /// Returns the bytes of a command.
    ///
    /// # Errors
    /// The command holds a line break or is too long.
    pub fn encode(self, command: &Command) -> Result<Bytes, EncodeError> {
        match self {
            Framing::Lines => encode_line(command),
            Framing::Payloads => match command.to_line()? {
                long if long.len() > PAYLOAD_BYTES_MAX => {
                    Err(EncodeError::TooLong { command: command.name(), bytes: long.len() })
                }
                payload => Ok(payload.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LINE_BYTES_MAX;

    #[test]
    fn a_payload_is_the_line_without_its_delimiter_and_may_be_longer() {
        let short = Command::RemoteServerUp("matrix.org".into());
        assert_eq!(Framing::Lines.encode(&short).unwrap(), "REMOTE_SERVER_UP matrix.org\n");
        assert_eq!(Framing::Payloads.encode(&short).unwrap(), "REMOTE_SERVER_UP matrix.org");
        let long = Command::RemoteServerUp("x".repeat(LINE_BYTES_MAX));
        assert!(Framing::Lines.encode(&long).is_err());
        assert_eq!(Framing::Payloads.encode(&long).unwrap().len(), LINE_BYTES_MAX + 17);
        let longest = Command::RemoteServerUp("x".repeat(PAYLOAD_BYTES_MAX - 17));
        assert_eq!(Framing::Payloads.encode(&longest).unwrap().len(), PAYLOAD_BYTES_MAX);
        let too_long = Command::RemoteServerUp("x".repeat(PAYLOAD_BYTES_MAX - 16));
        assert_eq!(
            Framing::Payloads.encode(&too_long),
            Err(EncodeError::TooLong { command: "REMOTE_SERVER_UP", bytes: PAYLOAD_BYTES_MAX + 1 })
        );
        let broken = Command::RemoteServerUp("two\nlines".into());
        assert!(Framing::Payloads.encode(&broken).is_err(), "no peer would read it as one command");
    }
}
