//! Recordings: files of payloads, as they were seen.
//!
//! There are two kinds, told apart by the first few lines: no line over TCP begins with a brace.
//!
//! - *Redis*: a JSON object on each line, `{"t": 1795323925.344, "ch": "example.org", "data": "RDATA …"}`: when the payload
//!   came, in seconds since whenever, on which channel, and what it was.
//! - *TCP*: the lines that one end of one connection sent, as they were. They do not say when.
//!
//! Either may be packed by gzip, which its first bytes tell. A line that cannot be read is told and passed over, so that
//! nothing else is lost by it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use thiserror::Error;

use super::{Payload, Transport};
use crate::judge::observation::Moment;

/// The first two bytes of every gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A recording, read line by line.
pub struct Capture {
    lines: Box<dyn BufRead>,
    transport: Transport,
    line: u64,
    /// When the first payload came, in the recording's own seconds.
    began: Option<f64>,
    is_over: bool,
}

/// One payload of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// When it came, since the first one came; none if the recording does not say.
    pub at: Option<Moment>,
    /// The channel it came on; none over TCP.
    pub channel: Option<String>,
    /// The payload.
    pub text: String,
}

/// What is wrong with a recording.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// One line of it, which was passed over.
    #[error("line {line}: {cause}")]
    Line {
        /// Which.
        line: u64,
        /// What is wrong with it.
        cause: Malformed,
    },
    /// The file ends, or its packing breaks, where it should go on. What came before stands.
    #[error(
        "cannot be read beyond line {line}: {error}. What comes before was judged; record it again, or unpack what is \
         left of it and name that"
    )]
    Read {
        /// The last line that was read.
        line: u64,
        /// Why it goes no further.
        error: io::Error,
    },
}

/// What is wrong with a line of a recording.
#[derive(Debug, Error)]
pub enum Malformed {
    /// It is not what a line of a recording of Redis is.
    #[error(
        "no payload of Redis: {0}. Each line is a JSON object {{\"t\": seconds, \"ch\": channel, \"data\": payload}}; \
         mend the line or take it out"
    )]
    Record(#[from] serde_json::Error),
    /// It is no text.
    #[error("not UTF-8 from its byte {} on; mend the line or take it out", .0 + 1)]
    NotUtf8(usize),
    /// It says that it came at no time.
    #[error("{0} is no time: \"t\" is in seconds, and must be 0 or more; mend the line or take it out")]
    Time(f64),
}

#[derive(Deserialize)]
struct Line {
    t: f64,
    ch: String,
    data: String,
}

impl Capture {
    /// Opens a file.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(path: &Path) -> io::Result<Capture> {
        Capture::new(File::open(path)?)
    }

    /// A recording from wherever.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(bytes: impl Read + 'static) -> io::Result<Capture> {
        let mut bytes = BufReader::new(bytes);
        let is_packed = bytes.fill_buf()?.starts_with(&GZIP);
        let mut lines: Box<dyn BufRead> =
            if is_packed { Box::new(BufReader::new(MultiGzDecoder::new(bytes))) } else { Box::new(bytes) };
        let is_record = |line: &[u8]| line.trim_ascii_start().starts_with(b"{");
        let is_redis = lines.fill_buf()?.split(|byte| *byte == b'\n').any(is_record);
        let transport = if is_redis { Transport::Redis } else { Transport::Tcp };
        Ok(Capture { lines, transport, line: 0, began: None, is_over: false })
    }

    /// How the payloads travelled.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The next line that is not blank, without its delimiter.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut line = Vec::new();
            if self.lines.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            line.pop_if(|last| *last == b'\n');
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn read(&mut self, line: Vec<u8>) -> Result<Recorded, Malformed> {
        let number = self.line;
        let text = String::from_utf8(line).map_err(|error| Malformed::NotUtf8(error.utf8_error().valid_up_to()))?;
        if self.transport == Transport::Tcp {
            return Ok(Recorded { line: number, at: None, channel: None, text });
        }
        let Line { t, ch, data } = serde_json::from_str(&text)?;
        if t < 0.0 {
            return Err(Malformed::Time(t));
        }
        // A time before the first one is the first one.
        let since = (t - *self.began.get_or_insert(t)).max(0.0);
        let at = Moment((since * 1_000.0).round() as u64);
        Ok(Recorded { line: number, at: Some(at), channel: Some(ch), text: data })
    }
}

impl Iterator for Capture {
    type Item = Result<Recorded, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.next_line() {
            Ok(Some(line)) => {
                let number = self.line;
                Some(self.read(line).map_err(|cause| CaptureError::Line { line: number, cause }))
            }
            Ok(None) => {
                self.is_over = true;
                None
            }
            Err(error) => {
                self.is_over = true;
                Some(Err(CaptureError::Read { line: self.line, error }))
            }
        }
    }
}

impl Recorded {
    /// The payload as an [audit](super::Audit) takes it.
    pub fn payload(&self) -> Payload<'_> {
        Payload { line: self.line, at: self.at, channel: self.channel.as_deref(), text: &self.text }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Payloads with their lines and times, and errors.
    fn read(bytes: impl Into<Vec<u8>>) -> (Transport, Vec<String>) {
        let capture = Capture::new(Cursor::new(bytes.into())).unwrap();
        let transport = capture.transport();
        let told = capture.map(|each| match each {
            Ok(Recorded { line, at, channel, text }) => {
                let at = at.map_or_else(|| "?".to_owned(), |at| at.0.to_string());
                format!("{line} {at} {} {text}", channel.as_deref().unwrap_or("-"))
            }
            Err(error) => error.to_string(),
        });
        (transport, told.collect())
    }

    const REDIS: &str =
        "{\"t\": 5.5, \"ch\": \"h\", \"data\": \"PING 1\"}\n\n{\"t\": 6.75, \"ch\": \"h\", \"data\": \"PING 2\"}";

    #[test]
    fn a_recording_of_redis_is_read_packed_and_plain() {
        let told = (Transport::Redis, vec!["1 0 h PING 1".to_owned(), "3 1250 h PING 2".to_owned()]);
        assert_eq!(read(REDIS), told);
        assert_eq!(read(packed(REDIS.as_bytes())), told);
    }

    #[test]
    fn a_recording_of_tcp_is_its_lines() {
        let told = (Transport::Tcp, vec!["1 ? - SERVER h".to_owned(), "3 ? - PING 1\r".to_owned()]);
        assert_eq!(read("SERVER h\n  \nPING 1\r\n"), told);
        assert_eq!(read(""), (Transport::Tcp, vec![]));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_told_and_passed_over() {
        let mut bytes = REDIS.as_bytes().to_vec();
        bytes.extend(b"\n{\"t\": 7}\n{\"t\": 7, \"ch\": \"h\", \"data\": \"\xff\"}\n{\"t\": -7, \"ch\": \"h\", \"data\": \"\"}\n");
        bytes.extend(REDIS.as_bytes());
        let (_, told) = read(bytes);
        assert_eq!(told.len(), 7);
        assert!(told[2].starts_with("line 4: no payload of Redis: missing field `ch`"), "{}", told[2]);
        assert!(told[3].starts_with("line 5: not UTF-8 from its byte 30 on"), "{}", told[3]);
        assert!(told[4].starts_with("line 6: -7 is no time"), "{}", told[4]);
        assert_eq!(told[5..], ["7 0 h PING 1".to_owned(), "9 1250 h PING 2".to_owned()]);
    }

    #[test]
    fn a_recording_of_redis_may_begin_with_a_line_that_cannot_be_read() {
        let (transport, told) = read(format!("PING 0\n{REDIS}"));
        assert_eq!((transport, told.len()), (Transport::Redis, 3));
        assert!(told[0].starts_with("line 1: no payload of Redis"), "{}", told[0]);
    }

    #[test]
    fn what_comes_before_broken_packing_is_read() {
        let bytes = packed("PING 1\n".repeat(100_000).as_bytes());
        let (_, told) = read(&bytes[..bytes.len() / 2]);
        assert!(told.len() > 1_000);
        assert!(told.last().unwrap().starts_with("cannot be read beyond line"), "{:?}", told.last());
    }

    #[test]
    fn a_recording_in_several_packed_parts_is_one() {
        let (_, told) = read([packed(b"PING 1\n"), packed(b"PING 2\n")].concat());
        assert_eq!(told, ["1 ? - PING 1", "2 ? - PING 2"]);
    }
}
