//! The bytes of a command on each transport.

use bytes::Bytes;

use super::command::Command;
use super::commands::rdata;
use super::line::{EncodeError, LINE_BYTES_MAX, encode_line};
use super::{InstanceName, RdataHeader, Row, StreamName, Token};

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

    /// Appends the bytes of an `RDATA` to `to`. `None` for the token is `batch`.
    ///
    /// # Errors
    /// A name holds a line break, or the command is too long. Then nothing is appended.
    pub fn encode_row(
        self,
        stream: &StreamName,
        writer: &InstanceName,
        token: Option<Token>,
        row: &Row,
        to: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = to.len();
        let written = rdata::write(stream, writer, token, row, to).map_err(EncodeError::from);
        let (bytes, bytes_max) = (to.len() - start, self.bytes_max());
        let written = match written {
            Ok(()) if bytes > bytes_max => Err(EncodeError::TooLong { command: RdataHeader::NAME, bytes }),
            written => written,
        };
        match written {
            Ok(()) if self == Framing::Lines => to.push(b'\n'),
            Ok(()) => {}
            Err(_) => to.truncate(start),
        }
        written
    }

    /// Returns the largest length of a command, in bytes without its delimiter.
    fn bytes_max(self) -> usize {
        match self {
            Framing::Lines => LINE_BYTES_MAX,
            Framing::Payloads => PAYLOAD_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rdata;
    use crate::rows::EventsRow;
    use crate::rows::events::StateAllRow;

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

    #[test]
    fn a_row_is_encoded_like_its_command() {
        let row = |room_id: &str| Row::Events(EventsRow::StateAll(StateAllRow { room_id: room_id.into() }));
        let (stream, writer) = (StreamName::from("events"), InstanceName::from("writer1"));
        let command = |token, row: &Row| {
            Command::Rdata(Rdata { stream: stream.clone(), writer: writer.clone(), token, row: row.to_json() })
        };
        for framing in [Framing::Lines, Framing::Payloads] {
            let overhead = framing.encode(&command(None, &row(""))).unwrap().len();
            let overhead = if framing == Framing::Lines { overhead - 1 } else { overhead };
            let longest = framing.bytes_max() - overhead;
            for (token, length) in [(Some(Token(-7)), 3), (None, 0), (None, longest), (None, longest + 1)] {
                let row = row(&"x".repeat(length));
                let mut bytes = b"before".to_vec();
                let encoded = framing.encode_row(&stream, &writer, token, &row, &mut bytes);
                let expected = framing.encode(&command(token, &row));
                assert_eq!(encoded.is_ok(), expected.is_ok() && length <= longest);
                assert_eq!(bytes, [b"before", &*expected.unwrap_or_default()].concat());
            }
        }
    }

    #[test]
    fn a_name_with_a_line_break_is_refused() {
        let row = Row::Events(EventsRow::StateAll(StateAllRow { room_id: "r".into() }));
        let mut bytes = Vec::new();
        let encoded = Framing::Lines.encode_row(&"a\nb".into(), &"w".into(), None, &row, &mut bytes);
        assert!(matches!(encoded, Err(EncodeError::LineBreak(_))) && bytes.is_empty());
    }
}
