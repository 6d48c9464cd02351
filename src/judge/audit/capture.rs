//! Recordings: files of payloads, as they were seen.
//!
//! There are two kinds, told apart by the first few lines: no line over TCP begins with a brace.
//!
//! - *Redis*: a JSON object on each line, `{"t": 1795323925.344, "ch": "example.org", "data": "RDATA …"}`: when the payload
//!   came, in seconds since whenever, on which channel, and what it was; `"hex"` instead of `"data"` if it is no text. Who
//!   recorded may also have been away, `{"t": …, "away": {"since": …, "why": "…"}}`, and not heard what was said from one
//!   time to the other; or says that nothing else was said until then, `{"t": …, "mark": true}`.
//! - *TCP*: the lines that one end of one connection sent, as they were. They do not say when.
//!
//! Either may be packed by gzip, which its first bytes tell. A line that cannot be read is told and passed over, so that
//! nothing else is lost by it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
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

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// When it came, since the first one came; none if the recording does not say.
    pub at: Option<Moment>,
    /// What it tells.
    pub entry: Entry,
}

/// What a line of a recording tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Something was said.
    Payload {
        /// The channel it came on; none over TCP.
        channel: Option<String>,
        /// What it was; text, if it is anything that should have been said.
        data: Vec<u8>,
    },
    /// What was said until now was not heard.
    Away(Away),
    /// Nothing else was said until now.
    Mark,
}

/// A time in which nothing could be heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Away {
    /// Since when.
    pub since: Moment,
    /// Until when.
    pub until: Moment,
    /// Why, in words.
    pub why: String,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Away { since, until, why } = self;
        write!(f, "nothing could be heard from {since} to {until}: {why}")
    }
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
    /// It is no text, and what stands for it is nothing either.
    #[error("\"hex\" is two hexadecimal digits for each byte; mend the line or take it out")]
    Hex,
}

/// A line of a recording of Redis, as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    t: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    away: Option<AwayLine>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    mark: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct AwayLine {
    since: f64,
    why: String,
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
            let entry = Entry::Payload { channel: None, data: text.into_bytes() };
            return Ok(Recorded { line: number, at: None, entry });
        }
        let Line { t, ch, data, hex, away, mark } = serde_json::from_str(&text)?;
        let at = self.moment(t)?;
        let entry = match away {
            Some(AwayLine { since, why }) => Entry::Away(Away { since: self.moment(since)?.min(at), until: at, why }),
            None if mark => Entry::Mark,
            None => {
                let channel = ch.ok_or_else(|| serde_json::Error::missing_field("ch"))?;
                let data = match (data, hex) {
                    (Some(data), _) => data.into_bytes(),
                    (None, Some(hex)) => unhex(&hex).ok_or(Malformed::Hex)?,
                    (None, None) => return Err(serde_json::Error::missing_field("data").into()),
                };
                Entry::Payload { channel: Some(channel), data }
            }
        };
        Ok(Recorded { line: number, at: Some(at), entry })
    }

    /// When `t` was, since the first line.
    fn moment(&mut self, t: f64) -> Result<Moment, Malformed> {
        if t < 0.0 {
            return Err(Malformed::Time(t));
        }
        // A time before the first one is the first one.
        let since = (t - *self.began.get_or_insert(t)).max(0.0);
        Ok(Moment((since * 1_000.0).round() as u64))
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
    /// What was said, as an [audit](super::Audit) takes it; none if this line tells something else.
    pub fn payload(&self) -> Option<Payload<'_>> {
        let Entry::Payload { channel, data } = &self.entry else { return None };
        Some(Payload { line: self.line, at: self.at, channel: channel.as_deref(), data })
    }

    /// What was said, if it is text.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.payload()?.data).ok()
    }

    /// The line of a recording of Redis that tells this, without its delimiter. The recording began at `began_ms` after
    /// whenever.
    pub fn to_line(&self, began_ms: u64) -> String {
        let seconds = |at: Moment| (began_ms + at.0) as f64 / 1_000.0;
        let line = Line { t: seconds(self.at.unwrap_or_default()), ..Line::default() };
        let line = match &self.entry {
            Entry::Payload { channel, data } => {
                let (data, hex) = match std::str::from_utf8(data) {
                    Ok(text) => (Some(text.to_owned()), None),
                    Err(_) => (None, Some(hex(data))),
                };
                Line { ch: Some(channel.clone().unwrap_or_default()), data, hex, ..line }
            }
            Entry::Away(away) => {
                Line { away: Some(AwayLine { since: seconds(away.since), why: away.why.clone() }), ..line }
            }
            Entry::Mark => Line { mark: true, ..line },
        };
        serde_json::to_string(&line).expect("a line is plain data")
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
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
            Ok(recorded) => {
                let at = recorded.at.map_or_else(|| "?".to_owned(), |at| at.0.to_string());
                let payload = recorded.payload().unwrap();
                format!("{} {at} {} {}", recorded.line, payload.channel.unwrap_or("-"), recorded.text().unwrap())
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
    fn what_was_recorded_is_read_as_it_was() {
        let entries = [
            Entry::Payload { channel: Some("h".to_owned()), data: b"two\nlines \"\xc3\xa9".to_vec() },
            Entry::Payload { channel: Some("h/USER_IP".to_owned()), data: b"\x00\xff\xa0".to_vec() },
            Entry::Away(Away { since: Moment(7), until: Moment(1_003), why: "closed".to_owned() }),
            Entry::Mark,
        ];
        let ats = [0, 6, 1_003, 2_004].map(|at| Some(Moment(at)));
        let recorded: Vec<_> =
            (1..).zip(ats).zip(entries).map(|((line, at), entry)| Recorded { line, at, entry }).collect();
        let lines: String = recorded.iter().map(|line| line.to_line(1_795_323_925_344) + "\n").collect();
        let read: Vec<_> = Capture::new(Cursor::new(lines)).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, recorded);
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(unhex("00fFa0").as_deref(), Some(&[0x00, 0xff, 0xa0][..]));
        assert_eq!((unhex("0"), unhex("0g"), unhex("é")), (None, None, None));
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
