//! The protocol of Redis: requests as a server reads them, replies as it writes them.
//!
//! A request is an array of bulk strings. Whatever else comes, a server answers with an error and hangs up.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// The most words of a request, as in Redis.
const WORDS_MAX: usize = 1024 * 1024;
/// The longest word, as in Redis unless it is told otherwise.
const WORD_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The longest line, as in Redis.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What came is no request. The words are Redis's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A line that does not end.
    #[error("Protocol error: too big mbulk count string")]
    LineTooLong,
    /// An array of more than [`WORDS_MAX`].
    #[error("Protocol error: invalid multibulk length")]
    Words,
    /// A word that does not begin with its length.
    #[error("Protocol error: expected '$', got '{0}'")]
    NoWord(char),
    /// A length that is none, or more than [`WORD_BYTES_MAX`].
    #[error("Protocol error: invalid bulk length")]
    Length,
}

/// Cuts a stream of bytes into requests.
#[derive(Debug, Default)]
pub struct Requests {
    buffer: BytesMut,
    /// The words of the request that is still to be completed, and how many it will have.
    words: Vec<Bytes>,
    expected: usize,
    /// The length of the word that comes next, once it is known.
    length: Option<usize>,
}

impl Requests {
    /// Where to put what comes.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next request; `None` until more comes.
    pub fn next_request(&mut self) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.expected == 0 {
                let Some(line) = self.line()? else { return Ok(None) };
                // What does not begin with `*` is a request that a person typed.
                let Some(count) = line.strip_prefix(b"*") else {
                    let words: Vec<Bytes> = line
                        .split(u8::is_ascii_whitespace)
                        .filter(|word| !word.is_empty())
                        .map(Bytes::copy_from_slice)
                        .collect();
                    if words.is_empty() {
                        continue;
                    }
                    return Ok(Some(words));
                };
                match number(count) {
                    Some(count) if count <= WORDS_MAX as i64 => self.expected = count.max(0) as usize,
                    _ => return Err(ProtocolError::Words),
                }
                continue;
            }
            let length = match self.length {
                Some(length) => length,
                None => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    let Some(length) = line.strip_prefix(b"$") else {
                        return Err(ProtocolError::NoWord(line.first().copied().unwrap_or(b'\r').into()));
                    };
                    let length = number(length).and_then(|length| usize::try_from(length).ok());
                    *self.length.insert(length.filter(|length| *length <= WORD_BYTES_MAX).ok_or(ProtocolError::Length)?)
                }
            };
            if self.buffer.len() < length + 2 {
                return Ok(None);
            }
            self.words.push(self.buffer.split_to(length).freeze());
            self.buffer.advance(2);
            self.length = None;
            if self.words.len() == self.expected {
                self.expected = 0;
                return Ok(Some(std::mem::take(&mut self.words)));
            }
        }
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

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A word of the protocol's own.
    Simple(Cow<'static, str>),
    /// What went wrong.
    Error(String),
    /// A number.
    Integer(i64),
    /// A value; none if there is none.
    Bulk(Option<Bytes>),
    /// Several of them.
    Array(Vec<Reply>),
}

impl Reply {
    /// A value.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Reply::Bulk(Some(bytes.into()))
    }

    /// Writes it as bytes.
    pub fn encode(&self, to: &mut BytesMut) {
        let head =
            |to: &mut BytesMut, kind: char, number: i64| to.extend_from_slice(format!("{kind}{number}\r\n").as_bytes());
        match self {
            Reply::Simple(word) => to.extend_from_slice(format!("+{word}\r\n").as_bytes()),
            Reply::Error(text) => to.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Reply::Integer(number) => head(to, ':', *number),
            Reply::Bulk(None) => head(to, '$', -1),
            Reply::Bulk(Some(bytes)) => {
                head(to, '$', bytes.len() as i64);
                to.extend_from_slice(bytes);
                to.extend_from_slice(b"\r\n");
            }
            Reply::Array(replies) => {
                head(to, '*', replies.len() as i64);
                replies.iter().for_each(|reply| reply.encode(to));
            }
        }
    }
}

/// Cuts a stream of bytes into replies, for whoever looks on. What is none, nothing comes after.
#[derive(Debug, Default)]
pub struct Replies {
    buffer: BytesMut,
}

impl Replies {
    /// What came.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next reply; `None` until more comes.
    pub fn next_reply(&mut self) -> Option<Reply> {
        let (reply, length) = reply_in(&self.buffer)?;
        self.buffer.advance(length);
        Some(reply)
    }
}

/// The reply that `bytes` begin with, and how long it is.
fn reply_in(bytes: &[u8]) -> Option<(Reply, usize)> {
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
            let (mut replies, mut at) = (Vec::new(), end);
            for _ in 0..text.parse::<usize>().ok()? {
                let (reply, length) = reply_in(&bytes[at..])?;
                replies.push(reply);
                at += length;
            }
            Some((Reply::Array(replies), at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(bytes: &[u8], piece: usize) -> Result<Vec<Vec<Bytes>>, ProtocolError> {
        let (mut requests, mut all) = (Requests::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            requests.buffer().extend_from_slice(piece);
            while let Some(request) = requests.next_request()? {
                all.push(request);
            }
        }
        Ok(all)
    }

    #[test]
    fn requests_come_however_the_bytes_are_cut() {
        let bytes = b"*2\r\n$7\r\nPUBLISH\r\n$4\r\na\r\nb\r\n*0\r\nping  two\r\n\r\n*1\r\n$0\r\n\r\n";
        let expected: Vec<Vec<Bytes>> =
            vec![vec!["PUBLISH".into(), "a\r\nb".into()], vec!["ping".into(), "two".into()], vec!["".into()]];
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(requests(bytes, piece).unwrap(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_and_nothing_is_held_for_it() {
        for (bytes, error) in [
            (&b"*x\r\n"[..], ProtocolError::Words),
            (b"*1048577\r\n", ProtocolError::Words),
            (b"*1\r\n+OK\r\n", ProtocolError::NoWord('+')),
            (b"*1\r\n$-1\r\n", ProtocolError::Length),
            (b"*1\r\n$536870913\r\n", ProtocolError::Length),
        ] {
            assert_eq!(requests(bytes, 100), Err(error), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(requests(&vec![b'x'; LINE_BYTES_MAX + 1], 1000), Err(ProtocolError::LineTooLong));
    }

    #[test]
    fn replies_are_those_of_redis() {
        let reply = Reply::Array(vec![
            Reply::bulk("message"),
            Reply::Integer(-3),
            Reply::Bulk(None),
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
        ]);
        let mut bytes = BytesMut::new();
        reply.encode(&mut bytes);
        let (mut replies, mut came) = (Replies::default(), Vec::new());
        for byte in [&bytes[..], &bytes[..]].concat() {
            replies.extend(&[byte]);
            came.extend(replies.next_reply());
        }
        assert_eq!(came, [reply.clone(), reply], "what was written can be read");
        assert_eq!(bytes, "*5\r\n$7\r\nmessage\r\n:-3\r\n$-1\r\n+OK\r\n-ERR no\r\n");
    }
}
