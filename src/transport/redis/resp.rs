//! RESP2, the protocol of Redis: encoding and decoding of requests and replies.
//!
//! Instances reach the broker through the `redis` crate, which has an implementation of its own. This one is for the
//! simulated broker, for those who observe a connection from outside, and for tests.
//!
//! A request is an array of bulk strings. A server answers anything else with an error and closes the connection.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Maximum number of words in a request, as in Redis.
const WORDS_MAX: usize = 1024 * 1024;
/// Maximum length of a word, in bytes. Redis has this default (`proto-max-bulk-len`).
const WORD_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Maximum length of a line, in bytes, as in Redis.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of arrays within each other in a reply. Those of Redis have three.
const NESTING_MAX: usize = 16;

/// A request that is malformed. The messages are those of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A line is longer than `LINE_BYTES_MAX`.
    #[error("Protocol error: too big mbulk count string")]
    LineTooLong,
    /// The number of words is invalid or more than `WORDS_MAX`.
    #[error("Protocol error: invalid multibulk length")]
    WordCount,
    /// A word does not begin with its length.
    #[error("Protocol error: expected '$', got '{0}'")]
    MissingLength(char),
    /// The length of a word is invalid or more than `WORD_BYTES_MAX`.
    #[error("Protocol error: invalid bulk length")]
    Length,
}

/// Encodes a request.
pub fn encode_request(words: &[impl AsRef<[u8]>]) -> Bytes {
    let words = words.iter().map(|word| Reply::bulk(Bytes::copy_from_slice(word.as_ref())));
    Reply::Array(words.collect()).to_bytes()
}

/// Decodes requests from a stream of bytes.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    buffer: BytesMut,
    /// The words of the incomplete request.
    words: Vec<Bytes>,
    /// Number of words of the incomplete request; 0 between two requests.
    expected: usize,
    /// Length of the next word, once it has been received.
    length: Option<usize>,
}

impl RequestDecoder {
    /// Returns the buffer to which received bytes are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns true if part of a request was received, and the rest was not.
    pub fn is_within_request(&self) -> bool {
        self.expected > 0 || !self.buffer.is_empty()
    }

    /// Decodes the next request; `None` if it is incomplete.
    pub fn next_request(&mut self) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.expected == 0 {
                let Some(line) = self.line()? else { return Ok(None) };
                // A line that does not begin with `*` is an inline request, which a person typed.
                let Some(count) = line.strip_prefix(b"*") else {
                    let words = inline_words(&line);
                    if words.is_empty() {
                        continue;
                    }
                    return Ok(Some(words));
                };
                match number(count) {
                    Some(count) if count <= WORDS_MAX as i64 => self.expected = count.max(0) as usize,
                    _ => return Err(ProtocolError::WordCount),
                }
                continue;
            }
            let Some(word) = self.word()? else { return Ok(None) };
            self.words.push(word);
            if self.words.len() == self.expected {
                self.expected = 0;
                return Ok(Some(std::mem::take(&mut self.words)));
            }
        }
    }

    /// Decodes the next word of an array: its length on a line of its own, and then its bytes.
    fn word(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(line) = self.line()? else { return Ok(None) };
                let Some(length) = line.strip_prefix(b"$") else {
                    return Err(ProtocolError::MissingLength(line.first().copied().unwrap_or(b'\r').into()));
                };
                let length = number(length).and_then(|length| usize::try_from(length).ok());
                *self.length.insert(length.filter(|length| *length <= WORD_BYTES_MAX).ok_or(ProtocolError::Length)?)
            }
        };
        if self.buffer.len() < length + 2 {
            return Ok(None);
        }
        let word = self.buffer.split_to(length).freeze();
        self.buffer.advance(2);
        self.length = None;
        Ok(Some(word))
    }

    fn line(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
            return if self.buffer.len() > LINE_BYTES_MAX { Err(ProtocolError::LineTooLong) } else { Ok(None) };
        };
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(if line[..end].ends_with(b"\r") { end - 1 } else { end });
        Ok(Some(line.freeze()))
    }
}

/// Splits an inline request into its words.
fn inline_words(line: &[u8]) -> Vec<Bytes> {
    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.map(Bytes::copy_from_slice).collect()
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A simple string, such as `OK`.
    Simple(Cow<'static, str>),
    /// An error.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A bulk string, or null.
    Bulk(Option<Bytes>),
    /// An array.
    Array(Vec<Reply>),
}

impl Reply {
    /// Creates a bulk string.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Reply::Bulk(Some(bytes.into()))
    }

    /// Creates the message that delivers `payload` to the subscribers of `channel`.
    pub fn message(channel: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        Reply::Array(vec![Reply::bulk("message"), Reply::bulk(channel), Reply::bulk(payload)])
    }

    /// Creates the acknowledgement of a subscription: the client now subscribes to `count` channels.
    pub fn subscribed(channel: impl Into<Bytes>, count: i64) -> Self {
        Reply::Array(vec![Reply::bulk("subscribe"), Reply::bulk(channel), Reply::Integer(count)])
    }

    /// Appends the encoded reply to `to`.
    pub fn encode(&self, to: &mut BytesMut) {
        match self {
            Reply::Simple(word) => to.extend_from_slice(format!("+{word}\r\n").as_bytes()),
            Reply::Error(text) => to.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Reply::Integer(number) => to.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Reply::Bulk(None) => to.extend_from_slice(b"$-1\r\n"),
            Reply::Bulk(Some(bytes)) => {
                to.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
                to.extend_from_slice(bytes);
                to.extend_from_slice(b"\r\n");
            }
            Reply::Array(replies) => {
                to.extend_from_slice(format!("*{}\r\n", replies.len()).as_bytes());
                for reply in replies {
                    reply.encode(to);
                }
            }
        }
    }

    /// Returns the encoded reply.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        self.encode(&mut bytes);
        bytes.freeze()
    }
}

/// Decodes replies from a stream of bytes. After a malformed reply it yields nothing more.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    buffer: BytesMut,
}

impl ReplyDecoder {
    /// Appends received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Decodes the next reply; `None` if it is incomplete.
    pub fn next_reply(&mut self) -> Option<Reply> {
        let (reply, length) = reply_in(&self.buffer, NESTING_MAX)?;
        self.buffer.advance(length);
        Some(reply)
    }

    /// Returns the bytes of the incomplete reply.
    pub fn pending(&self) -> &[u8] {
        &self.buffer
    }
}

/// Decodes the reply at the beginning of `bytes`, with at most this `nesting`. Returns it and its length in bytes.
fn reply_in(bytes: &[u8], nesting: usize) -> Option<(Reply, usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let (kind, text) = bytes[..end].strip_suffix(b"\r\n")?.split_first()?;
    let text = std::str::from_utf8(text).ok()?;
    match kind {
        b'+' => Some((Reply::Simple(text.to_owned().into()), end)),
        b'-' => Some((Reply::Error(text.to_owned()), end)),
        b':' => Some((Reply::Integer(text.parse().ok()?), end)),
        b'$' if text == "-1" => Some((Reply::Bulk(None), end)),
        b'$' => {
            let length: usize = text.parse().ok()?;
            let word = bytes.get(end..)?.get(..length.checked_add(2)?)?;
            Some((Reply::bulk(Bytes::copy_from_slice(&word[..length])), end + word.len()))
        }
        b'*' => {
            let mut replies = Vec::new();
            let mut at = end;
            for _ in 0..text.parse::<usize>().ok()? {
                let (reply, length) = reply_in(&bytes[at..], nesting.checked_sub(1)?)?;
                replies.push(reply);
                at += length;
            }
            Some((Reply::Array(replies), at))
        }
        _ => None,
    }
}

/// Bytes that are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Returns the length of the reply at the beginning of `bytes`, of which nothing is kept; `None` if it is incomplete.
pub(super) fn reply_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    reply_length_within(bytes, NESTING_MAX)
}

fn reply_length_within(bytes: &[u8], nesting: usize) -> Result<Option<usize>, Malformed> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    match kind {
        b'+' | b'-' | b':' => Ok(line_end(bytes)),
        b'$' if bytes.starts_with(b"$-1\r\n") => Ok(Some(5)),
        b'$' => Ok(bulk_length(bytes)?.map(|(start, length)| start + length + 2).filter(|end| *end <= bytes.len())),
        b'*' => {
            let Some(mut end) = line_end(bytes) else { return Ok(None) };
            let count = number(&bytes[1..end - 2]).ok_or(Malformed)?;
            for _ in 0..count {
                let nesting = nesting.checked_sub(1).ok_or(Malformed)?;
                let Some(length) = reply_length_within(&bytes[end..], nesting)? else { return Ok(None) };
                end += length;
            }
            Ok(Some(end))
        }
        _ => Err(Malformed),
    }
}

/// Returns where the bulk string at the beginning of `bytes` starts, and its length; `None` if the line with its length is
/// incomplete.
pub(super) fn bulk_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some((kind, line)) = bytes.split_first() else { return Ok(None) };
    if *kind != b'$' {
        return Err(Malformed);
    }
    let Some(end) = line_end(line) else { return Ok(None) };
    let length = number(&line[..end - 2]).and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= WORD_BYTES_MAX).ok_or(Malformed)?;
    Ok(Some((1 + end, length)))
}

/// Returns the end of the first line.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n").map(|at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(bytes: &[u8], piece: usize) -> Result<Vec<Vec<Bytes>>, ProtocolError> {
        let mut requests = RequestDecoder::default();
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            requests.buffer().extend_from_slice(piece);
            while let Some(request) = requests.next_request()? {
                all.push(request);
            }
        }
        Ok(all)
    }

    #[test]
    fn requests_are_decoded_however_the_bytes_are_split() {
        let bytes = b"*2\r\n$7\r\nPUBLISH\r\n$4\r\na\r\nb\r\n*0\r\nping  two\r\n\r\n*1\r\n$0\r\n\r\n";
        let expected: Vec<Vec<Bytes>> =
            vec![vec!["PUBLISH".into(), "a\r\nb".into()], vec!["ping".into(), "two".into()], vec!["".into()]];
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(requests(bytes, piece).unwrap(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_malformed_request_is_refused_and_nothing_is_buffered_for_it() {
        for (bytes, error) in [
            (&b"*x\r\n"[..], ProtocolError::WordCount),
            (b"*1048577\r\n", ProtocolError::WordCount),
            (b"*1\r\n+OK\r\n", ProtocolError::MissingLength('+')),
            (b"*1\r\n$-1\r\n", ProtocolError::Length),
            (b"*1\r\n$536870913\r\n", ProtocolError::Length),
        ] {
            assert_eq!(requests(bytes, 100), Err(error), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(requests(&[b'x'; 65_537], 1000), Err(ProtocolError::LineTooLong));
    }

    #[test]
    fn a_request_may_be_as_long_as_redis_allows() {
        for bytes in [&b"*1048576\r\n"[..], b"*1\r\n$536870912\r\n", &[b'x'; 65_536]] {
            assert_eq!(requests(bytes, 1000), Ok(Vec::new()), "the rest of it may be next");
        }
    }

    #[test]
    fn replies_are_encoded_as_redis_does_and_decoded_again() {
        let reply = Reply::Array(vec![
            Reply::bulk("message"),
            Reply::Integer(-3),
            Reply::Bulk(None),
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
        ]);
        let mut bytes = BytesMut::new();
        reply.encode(&mut bytes);
        let mut replies = ReplyDecoder::default();
        let mut decoded = Vec::new();
        for byte in [&bytes[..], &bytes[..]].concat() {
            replies.extend(&[byte]);
            decoded.extend(replies.next_reply());
        }
        assert_eq!(decoded, [reply.clone(), reply]);
        assert_eq!(replies.pending(), b"");
        assert_eq!(bytes, "*5\r\n$7\r\nmessage\r\n:-3\r\n$-1\r\n+OK\r\n-ERR no\r\n");
    }

    #[test]
    fn arrays_within_arrays_do_not_exhaust_the_stack() {
        let decoded = |nesting| {
            let mut replies = ReplyDecoder::default();
            replies.extend(("*1\r\n".repeat(nesting) + ":1\r\n").as_bytes());
            replies.next_reply().is_some()
        };
        assert_eq!([NESTING_MAX, NESTING_MAX + 1, 1_000_000].map(decoded), [true, false, false]);
    }

    #[test]
    fn an_encoded_request_is_decoded_again() {
        let bytes = encode_request(&["PUBLISH", "a\r\nb", ""]);
        assert_eq!(bytes, "*3\r\n$7\r\nPUBLISH\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
        assert_eq!(requests(&bytes, 5).unwrap(), [["PUBLISH", "a\r\nb", ""]]);
    }
}
