//! What a broker says: RESP2, the older protocol of Redis, as much of it as replication needs.
//!
//! Read from a stream by whoever deals with it, one reply after the other, so that what is not dealt with yet waits with
//! the kernel and in the end with the broker, who drops whoever is too slow (`client-output-buffer-limit pubsub`); that is
//! a lost connection like any other. The `redis` crate reads as fast as the broker writes, into a queue and a buffer
//! without bounds: a broker in a hurry has it hold whatever is not handled yet, a reply that never ends all of itself.

use std::fmt::Write;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::protocol::PAYLOAD_BYTES_MAX;

/// The longest reply, in bytes: a message with the longest payload that a Squall publishes. What is published are rows, and
/// none holds an event's content; Redis itself carries up to 512 MiB (`proto-max-bulk-len`).
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(PAYLOAD_BYTES_MAX + 16 * 1024 < REPLY_BYTES_MAX, "with its channel");
/// The most elements of an array. The longest that comes is a message, of three.
const ELEMENTS_MAX: usize = 16;
/// How deep arrays are nested. Those that come hold no others; it takes no stack.
const DEPTH_MAX: usize = 4;

/// What came is no reply, or none that anybody here could want. What comes behind it cannot be made out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// It is longer than [`REPLY_BYTES_MAX`], or says that it will be.
    #[error("a reply of more than {REPLY_BYTES_MAX} bytes")]
    TooLong,
    /// An array has more than [`ELEMENTS_MAX`] elements.
    #[error("an array of more than {ELEMENTS_MAX} elements")]
    TooMany,
    /// Arrays are nested deeper than [`DEPTH_MAX`].
    #[error("arrays nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// It begins with a byte that no reply begins with.
    #[error("a reply cannot begin with {:?}", char::from(*.0))]
    Kind(u8),
    /// A number or length that is none.
    #[error("a number that is none: {0:?}")]
    Number(String),
    /// There is no line break where there has to be one.
    #[error("no line break at the end of a value")]
    Delimiter,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A word of the protocol's own.
    Simple(Bytes),
    /// What went wrong.
    Error(Bytes),
    /// A number.
    Integer(i64),
    /// A value; none if there is none.
    Bulk(Option<Bytes>),
    /// Several of them.
    Array(Vec<Reply>),
}

impl Reply {
    /// Its elements, if it is an array.
    fn elements(&self) -> &[Reply] {
        match self {
            Reply::Array(elements) => elements,
            _ => &[],
        }
    }

    /// What was published, if it is that.
    pub fn message(&self) -> Option<&[u8]> {
        match self.elements() {
            [Reply::Bulk(Some(kind)), Reply::Bulk(Some(_channel)), Reply::Bulk(Some(payload))] if kind == "message" => {
                Some(payload)
            }
            _ => None,
        }
    }

    /// Whether it answers a `PING`: with one word, or with two to whoever has subscribed.
    pub fn is_pong(&self) -> bool {
        match (self, self.elements()) {
            (Reply::Simple(word), _) => word == "PONG",
            (_, [Reply::Bulk(Some(kind)), Reply::Bulk(Some(_))]) => kind == "pong",
            _ => false,
        }
    }

    /// Whether it acknowledges a subscription.
    pub fn is_subscribed(&self) -> bool {
        matches!(self.elements(), [Reply::Bulk(Some(kind)), Reply::Bulk(Some(_)), Reply::Integer(_)] if kind == "subscribe")
    }
}

/// Adds a command, which is an array of words, to what is sent.
pub fn encode(words: &[&[u8]], to: &mut BytesMut) {
    let head = |to: &mut BytesMut, kind: char, count: usize| {
        write!(to, "{kind}{count}\r\n").expect("it grows as it has to");
    };
    head(to, '*', words.len());
    for word in words {
        head(to, '$', word.len());
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

/// Cuts a stream of bytes into replies. Holds no more than one reply and what was read with its end.
#[derive(Debug, Default)]
pub struct Replies {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line break, so that each byte is looked at once.
    scanned: usize,
    /// How much of the reply that is being put together is no longer in the buffer.
    taken: usize,
    /// The length of the value that comes next, once it is known.
    length: Option<usize>,
    /// The arrays that are being put together, from the outermost, and how many elements each will have.
    arrays: Vec<(Vec<Reply>, usize)>,
}

impl Replies {
    /// Where to put what comes, with room for so much.
    pub fn buffer(&mut self, room: usize) -> &mut BytesMut {
        self.buffer.reserve(room);
        &mut self.buffer
    }

    /// The next reply; `None` until more comes.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        while let Some(mut reply) = self.next_element()? {
            loop {
                let Some((elements, expected)) = self.arrays.last_mut() else {
                    self.taken = 0;
                    return Ok(Some(reply));
                };
                elements.push(reply);
                if elements.len() < *expected {
                    break;
                }
                let (elements, _) = self.arrays.pop().expect("one was looked at");
                reply = Reply::Array(elements);
            }
        }
        if self.taken + self.buffer.len() > REPLY_BYTES_MAX {
            return Err(ReplyError::TooLong);
        }
        Ok(None)
    }

    /// The next reply that is no array, or an empty one; the heads of arrays that have to be completed are kept.
    fn next_element(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            if let Some(length) = self.length {
                return self.value(length);
            }
            let Some(line) = self.line()? else { return Ok(None) };
            let kind = line[0];
            let rest = line.slice(1..);
            match kind {
                b'+' => return Ok(Some(Reply::Simple(rest))),
                b'-' => return Ok(Some(Reply::Error(rest))),
                b':' => return Ok(Some(Reply::Integer(number(&rest)?))),
                b'$' => match length(&rest)? {
                    None => return Ok(Some(Reply::Bulk(None))),
                    Some(length) if self.taken + length > REPLY_BYTES_MAX => return Err(ReplyError::TooLong),
                    some => self.length = some,
                },
                b'*' => match length(&rest)? {
                    None | Some(0) => return Ok(Some(Reply::Array(Vec::new()))),
                    Some(count) if count > ELEMENTS_MAX => return Err(ReplyError::TooMany),
                    Some(_) if self.arrays.len() == DEPTH_MAX => return Err(ReplyError::TooDeep),
                    Some(count) => self.arrays.push((Vec::with_capacity(count), count)),
                },
                other => return Err(ReplyError::Kind(other)),
            }
        }
    }

    /// A value of so many bytes and its line break.
    fn value(&mut self, length: usize) -> Result<Option<Reply>, ReplyError> {
        if self.buffer.len() < length + 2 {
            return Ok(None);
        }
        let value = self.buffer.split_to(length).freeze();
        if !self.buffer.starts_with(b"\r\n") {
            return Err(ReplyError::Delimiter);
        }
        self.buffer.advance(2);
        self.taken += length + 2;
        self.length = None;
        Ok(Some(Reply::Bulk(Some(value))))
    }

    /// The next line without its delimiter. It has a first byte, which says what it is.
    fn line(&mut self) -> Result<Option<Bytes>, ReplyError> {
        if let Some(first) = self.buffer.first().filter(|first| !b"+-:$*".contains(first)) {
            return Err(ReplyError::Kind(*first)); // at once, for its line may never end
        }
        let Some(length) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return Ok(None);
        };
        let end = self.scanned + length;
        self.scanned = 0;
        self.taken += end + 1;
        let line = self.buffer.split_to(end + 1).freeze();
        line.ends_with(b"\r\n").then(|| Some(line.slice(..end - 1))).ok_or(ReplyError::Delimiter)
    }
}

/// A length: `-1` says that there is nothing, and nothing else is negative.
fn length(text: &[u8]) -> Result<Option<usize>, ReplyError> {
    match number(text)? {
        -1 => Ok(None),
        length => Ok(Some(usize::try_from(length).map_err(|_| not_a_number(text))?)),
    }
}

fn number(text: &[u8]) -> Result<i64, ReplyError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| not_a_number(text))
}

fn not_a_number(text: &[u8]) -> ReplyError {
    ReplyError::Number(String::from_utf8_lossy(&text[..text.len().min(32)]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The replies in `bytes` that come in pieces of `piece`, and what is wrong with what is behind them.
    fn replies(bytes: &[u8], piece: usize) -> (Vec<Reply>, Option<ReplyError>) {
        let (mut replies, mut all) = (Replies::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            replies.buffer.extend_from_slice(piece);
            loop {
                match replies.next_reply() {
                    Ok(Some(reply)) => all.push(reply),
                    Ok(None) => break,
                    Err(error) => return (all, Some(error)),
                }
            }
        }
        (all, None)
    }

    fn bulk(word: &'static str) -> Reply {
        Reply::Bulk(Some(word.into()))
    }

    #[test]
    fn replies_come_however_the_bytes_are_cut() {
        let bytes =
            b"+PONG\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nx\r\ny\r\n:-12\r\n$-1\r\n*-1\r\n*0\r\n-ERR no\r\n\
            *2\r\n*1\r\n*0\r\n$0\r\n\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        let nothing = || Reply::Array(Vec::new());
        let expected = vec![
            Reply::Simple("PONG".into()),
            Reply::Array(vec![bulk("message"), bulk("a"), bulk("x\r\ny")]),
            Reply::Integer(-12),
            Reply::Bulk(None),
            nothing(),
            nothing(),
            Reply::Error("ERR no".into()),
            Reply::Array(vec![Reply::Array(vec![nothing()]), bulk("")]),
            Reply::Array(vec![bulk("subscribe"), bulk("a"), Reply::Integer(1)]),
            Reply::Array(vec![bulk("pong"), bulk("")]),
        ];
        for piece in [1, 2, 3, 7, 1_000] {
            assert_eq!(replies(bytes, piece), (expected.clone(), None), "pieces of {piece}");
        }
        let which = |is: fn(&Reply) -> bool| (0..expected.len()).filter(|at| is(&expected[*at])).collect::<Vec<_>>();
        assert_eq!(which(|reply| reply.message() == Some(b"x\r\ny")), [1]);
        assert_eq!(which(|reply| reply.message().is_some()), [1]);
        assert_eq!(which(Reply::is_pong), [0, 9]);
        assert_eq!(which(Reply::is_subscribed), [8]);
    }

    #[test]
    fn what_is_no_reply_is_refused_as_soon_as_that_is_certain() {
        let number = |text: &str| ReplyError::Number(text.into());
        for (bytes, error) in [
            (&b"HTTP/1.1"[..], ReplyError::Kind(b'H')),
            (b"\0", ReplyError::Kind(0)),
            (b"\r\n", ReplyError::Kind(b'\r')),
            (b":1x\r\n", number("1x")),
            (b":\r\n", number("")),
            (b"$-2\r\n", number("-2")),
            (b"*-9223372036854775808\r\n", number("-9223372036854775808")),
            (b"$99999999999999999999\r\n", number("99999999999999999999")),
            (b"$999999999999\r\n", ReplyError::TooLong),
            (b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1048576\r\n", ReplyError::TooLong),
            (b"*17\r\n", ReplyError::TooMany),
            (b"$1\r\nabc", ReplyError::Delimiter),
            (b"+OK\n", ReplyError::Delimiter),
        ] {
            for piece in [1, 1_000] {
                let refused = (vec![Reply::Integer(1)], Some(error.clone()));
                assert_eq!(replies(&[b":1\r\n", bytes].concat(), piece), refused, "{}", bytes.escape_ascii());
            }
        }
        assert_eq!(replies(&b"*1\r\n".repeat(10_000), 1_000), (vec![], Some(ReplyError::TooDeep)));
        assert_eq!(replies(&vec![b'+'; REPLY_BYTES_MAX + 1], 1_000), (vec![], Some(ReplyError::TooLong)));
    }

    #[test]
    fn the_longest_reply_is_taken_and_no_longer_one() {
        let of = |length: usize| format!("${length}\r\n{}\r\n", "x".repeat(length)).into_bytes();
        let overhead = "$1048576\r\n\r\n".len();
        let (taken, error) = replies(&of(REPLY_BYTES_MAX - overhead), 10_000);
        assert_eq!((taken.len(), error), (1, None));
        assert_eq!(replies(&of(REPLY_BYTES_MAX), 10_000), (vec![], Some(ReplyError::TooLong)));
    }

    #[test]
    fn commands_are_arrays_of_words() {
        let mut bytes = BytesMut::new();
        encode(&[b"PUBLISH", b"a", b"\r\n"], &mut bytes);
        assert_eq!(bytes, "*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$2\r\n\r\n\r\n");
    }
}
