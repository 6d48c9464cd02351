//! Recordings: files of payloads.
//!
//! There are two kinds. Their first lines distinguish them, because no line over TCP begins with a brace.
//!
//! - *Redis*: a JSON object on each line, `{"t": 1795323925.344, "ch": "example.org", "data": "RDATA …"}`: the time in
//!   seconds, from any origin, the channel, and the payload; `"hex"` instead of `"data"` if the payload is not text. A line
//!   `{"t": …, "away": {"since": …, "why": "…"}}` is a gap: payloads between the two times were not received. A line
//!   `{"t": …, "mark": true}` says that no other payload came until then.
//! - *TCP*: the lines that one end of one connection sent. They have no times.
//!
//! Either may be packed by gzip, which its first bytes show. A line that cannot be read is reported and skipped. A file of
//! 2 MB may hold one line of a gigabyte, so at most [`RECORDED_BYTES_MAX`] of a line are held.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::gaps::Gap;
use super::payload::{Payload, Transport};
use crate::observation::SimTime;
use squall_protocol::Quoted;

/// The first two bytes of every gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Length of the longest line that is read, in bytes. The longest payload that is judged fits, with each byte escaped.
pub const RECORDED_BYTES_MAX: usize = 8 << 20;

/// A recording, read line by line.
pub struct Capture {
    lines: Box<dyn BufRead>,
    transport: Transport,
    line: u64,
    /// The time of the first line, in the recording's own seconds.
    began: Option<f64>,
    is_over: bool,
}

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// The time since the first line, if the recording has times.
    pub at: Option<SimTime>,
    /// Its content.
    pub entry: Entry,
}

/// The content of a line of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A payload.
    Payload {
        /// The channel it came on. Over TCP there is none.
        channel: Option<String>,
        /// Its bytes. A payload that Synapse could have sent is text.
        data: Vec<u8>,
    },
    /// A time, until now, in which payloads may have been missed.
    Gap(Gap),
    /// A proof that no other payload came until now.
    Mark,
}

/// A defect of a recording.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// A line that cannot be read, and was skipped.
    #[error("line {line}: {cause}")]
    Line {
        /// The line.
        line: u64,
        /// Its defect.
        cause: Malformed,
    },
    /// A file that cannot be read to its end. The lines before were judged.
    #[error(
        "cannot be read beyond line {line}: {error}. The lines before were judged; record the traffic again, or unpack \
         the readable part and name that file"
    )]
    Read {
        /// The last line that was read.
        line: u64,
        /// The reason.
        error: io::Error,
    },
}

impl CaptureError {
    /// Returns a predicate for lines of this kind, by which they are counted: `5 lines are too long`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            CaptureError::Line { cause: Malformed::Record(_), .. } => "not payloads from Redis",
            CaptureError::Line { cause: Malformed::TooLong, .. } => "too long",
            CaptureError::Line { cause: Malformed::NotUtf8(_), .. } => "not UTF-8",
            CaptureError::Line { cause: Malformed::Time(_), .. } => "without a time",
            CaptureError::Line { cause: Malformed::Hex, .. } => "without readable hexadecimal digits",
            CaptureError::Read { .. } => "not read",
        }
    }
}

/// A defect of a line of a recording.
#[derive(Debug, Error)]
pub enum Malformed {
    /// It is not a line of a recording of Redis.
    #[error(
        "not a payload from Redis: {0}. Each line is a JSON object {{\"t\": seconds, \"ch\": channel, \"data\": payload}}; \
         mend the line or take it out"
    )]
    Record(String),
    /// It is too long to be read.
    #[error("longer than {RECORDED_BYTES_MAX} bytes; mend the line or take it out")]
    TooLong,
    /// It is not text.
    #[error("not UTF-8 from byte {} on; mend the line or take it out", .0 + 1)]
    NotUtf8(usize),
    /// Its time is negative.
    #[error("{0} is not a time: \"t\" is in seconds and must be 0 or more; mend the line or take it out")]
    Time(f64),
    /// Its hexadecimal digits cannot be read.
    #[error("\"hex\" must have two hexadecimal digits for each byte; mend the line or take it out")]
    Hex,
}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        // It may quote the line.
        Malformed::Record(Quoted(error).to_string())
    }
}

/// A line of a recording of Redis, in its JSON form.
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
    away: Option<GapLine>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    mark: bool,
}

/// A gap, in its JSON form.
#[derive(Debug, Serialize, Deserialize)]
struct GapLine {
    since: f64,
    why: String,
}

impl Capture {
    /// Opens a file.
    ///
    /// # Errors
    /// The file does not exist or cannot be read.
    pub fn open(path: &Path) -> io::Result<Capture> {
        Capture::new(File::open(path)?)
    }

    /// Returns a recording that is read from any source.
    ///
    /// # Errors
    /// The source cannot be read.
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

    /// Returns the way the payloads travelled.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Reads the next line that is not blank, without its delimiter. The rest of a line that is too long is skipped.
    fn next_line(&mut self) -> io::Result<Option<Result<Vec<u8>, Malformed>>> {
        loop {
            let mut line = Vec::new();
            let held_max = RECORDED_BYTES_MAX as u64 + 1;
            if self.lines.by_ref().take(held_max).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            line.pop_if(|last| *last == b'\n');
            if line.len() > RECORDED_BYTES_MAX {
                self.lines.skip_until(b'\n')?;
                return Ok(Some(Err(Malformed::TooLong)));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Ok(line)));
            }
        }
    }

    /// Parses a line.
    fn parse(&mut self, line: Vec<u8>) -> Result<Recorded, Malformed> {
        let number = self.line;
        let text = String::from_utf8(line).map_err(|error| Malformed::NotUtf8(error.utf8_error().valid_up_to()))?;
        if self.transport == Transport::Tcp {
            let entry = Entry::Payload { channel: None, data: text.into_bytes() };
            return Ok(Recorded { line: number, at: None, entry });
        }
        let Line { t, ch, data, hex, away, mark } = serde_json::from_str(&text)?;
        let at = self.time(t)?;
        let entry = match away {
            Some(GapLine { since, why }) => {
                Entry::Gap(Gap { since: self.time(since)?.min(at), until: at, why: Quoted(why).to_string() })
            }
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

    /// Returns the time of `t`, counted from the first line.
    fn time(&mut self, t: f64) -> Result<SimTime, Malformed> {
        if t < 0.0 {
            return Err(Malformed::Time(t));
        }
        // A time before the first line counts as that of the first line.
        let since = (t - *self.began.get_or_insert(t)).max(0.0);
        Ok(SimTime((since * 1_000.0).round() as u64))
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
                let recorded = line.and_then(|line| self.parse(line));
                Some(recorded.map_err(|cause| CaptureError::Line { line: number, cause }))
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
    /// Returns the payload, if the line is one.
    pub fn payload(&self) -> Option<Payload<'_>> {
        let Entry::Payload { channel, data } = &self.entry else { return None };
        Some(Payload { line: self.line, at: self.at, channel: channel.as_deref(), data })
    }

    /// Returns the text of the payload, if the line is a payload and the payload is text.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.payload()?.data).ok()
    }

    /// Formats this as a line of a recording of Redis, without a delimiter. The recording began at `began_ms`.
    pub fn to_line(&self, began_ms: u64) -> String {
        let seconds = |at: SimTime| (began_ms + at.0) as f64 / 1_000.0;
        let line = Line { t: seconds(self.at.unwrap_or_default()), ..Line::default() };
        let line = match &self.entry {
            Entry::Payload { channel, data } => {
                let (data, hex) = match std::str::from_utf8(data) {
                    Ok(text) => (Some(text.to_owned()), None),
                    Err(_) => (None, Some(hex(data))),
                };
                Line { ch: Some(channel.clone().unwrap_or_default()), data, hex, ..line }
            }
            Entry::Gap(gap) => Line { away: Some(GapLine { since: seconds(gap.since), why: gap.why.clone() }), ..line },
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

    /// Returns the payloads with their lines and times, and the errors.
    fn read(bytes: impl Into<Vec<u8>>) -> (Transport, Vec<String>) {
        let capture = Capture::new(Cursor::new(bytes.into())).unwrap();
        let transport = capture.transport();
        let lines = capture.map(|each| match each {
            Ok(recorded) => {
                let at = recorded.at.map_or_else(|| "?".to_owned(), |at| at.0.to_string());
                let payload = recorded.payload().unwrap();
                format!("{} {at} {} {}", recorded.line, payload.channel.unwrap_or("-"), recorded.text().unwrap())
            }
            Err(error) => error.to_string(),
        });
        (transport, lines.collect())
    }

    const REDIS: &str =
        "{\"t\": 5.5, \"ch\": \"h\", \"data\": \"PING 1\"}\n\n{\"t\": 6.75, \"ch\": \"h\", \"data\": \"PING 2\"}";

    #[test]
    fn a_recording_of_redis_is_read_packed_and_plain() {
        let lines = (Transport::Redis, vec!["1 0 h PING 1".to_owned(), "3 1250 h PING 2".to_owned()]);
        assert_eq!(read(REDIS), lines);
        assert_eq!(read(packed(REDIS.as_bytes())), lines);
    }

    #[test]
    fn a_recording_of_tcp_is_its_lines() {
        let lines = (Transport::Tcp, vec!["1 ? - SERVER h".to_owned(), "3 ? - PING 1\r".to_owned()]);
        assert_eq!(read("SERVER h\n  \nPING 1\r\n"), lines);
        assert_eq!(read(""), (Transport::Tcp, vec![]));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_reported_and_skipped() {
        let mut bytes = REDIS.as_bytes().to_vec();
        bytes.extend(b"\n{\"t\": 7}\n{\"t\": 7, \"ch\": \"h\", \"data\": \"\xff\"}\n{\"t\": -7, \"ch\": \"h\", \"data\": \"\"}\n");
        bytes.extend(REDIS.as_bytes());
        let (_, lines) = read(bytes);
        assert_eq!(lines.len(), 7);
        assert!(lines[2].starts_with("line 4: not a payload from Redis: missing field `ch`"), "{}", lines[2]);
        assert!(lines[3].starts_with("line 5: not UTF-8 from byte 30 on"), "{}", lines[3]);
        assert!(lines[4].starts_with("line 6: -7 is not a time"), "{}", lines[4]);
        assert_eq!(lines[5..], ["7 0 h PING 1".to_owned(), "9 1250 h PING 2".to_owned()]);
    }

    #[test]
    fn a_recording_of_redis_may_begin_with_a_line_that_cannot_be_read() {
        let (transport, lines) = read(format!("PING 0\n{REDIS}"));
        assert_eq!((transport, lines.len()), (Transport::Redis, 3));
        assert!(lines[0].starts_with("line 1: not a payload from Redis"), "{}", lines[0]);
    }

    #[test]
    fn a_written_recording_reads_back_the_same() {
        let entries = [
            Entry::Payload { channel: Some("h".to_owned()), data: b"two\nlines \"\xc3\xa9".to_vec() },
            Entry::Payload { channel: Some("h/USER_IP".to_owned()), data: b"\x00\xff\xa0".to_vec() },
            Entry::Gap(Gap { since: SimTime(7), until: SimTime(1_003), why: "closed".to_owned() }),
            Entry::Mark,
        ];
        let ats = [0, 6, 1_003, 2_004].map(|at| Some(SimTime(at)));
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
    fn the_lines_before_broken_packing_are_read() {
        let bytes = packed("PING 1\n".repeat(100_000).as_bytes());
        let (_, lines) = read(&bytes[..bytes.len() / 2]);
        assert!(lines.len() > 1_000);
        assert!(lines.last().unwrap().starts_with("cannot be read beyond line"), "{:?}", lines.last());
    }

    #[test]
    fn a_line_that_is_too_long_is_one_that_cannot_be_read() {
        let longest = "P".repeat(RECORDED_BYTES_MAX);
        let (_, lines) = read(format!("PING 1\n{longest}\n{longest}{longest}X\nPING 2\n{longest}X"));
        let numbers: Vec<_> = lines.iter().map(|line| &line[..line.len().min(12)]).collect();
        assert_eq!(numbers, ["1 ? - PING 1", "2 ? - PPPPPP", "line 3: long", "4 ? - PING 2", "line 5: long"]);
    }

    #[test]
    fn the_defect_of_a_line_quotes_little_of_it() {
        let long = "\u{1b}".repeat(10_000);
        let (_, lines) = read(format!("{REDIS}\n{}\n", serde_json::json!({ "t": long })));
        assert!(lines[2].starts_with("line 4: not a payload from Redis: invalid type: string"), "{}", lines[2]);
        assert!(lines[2].len() < 3_000 && !lines[2].contains('\u{1b}'), "{}", lines[2].len());
    }

    #[test]
    fn a_recording_in_several_packed_parts_is_one() {
        let (_, lines) = read([packed(b"PING 1\n"), packed(b"PING 2\n")].concat());
        assert_eq!(lines, ["1 ? - PING 1", "2 ? - PING 2"]);
    }
}
