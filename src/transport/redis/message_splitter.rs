//! Takes published messages out of a subscription, before the `redis` crate parses it.
//!
//! The crate's parser takes thousands of instructions for a message, and several allocations. Nearly everything that a
//! subscription carries is messages, and they all have one form. So they are taken out here, and only the rest reaches the
//! crate: the answers to the greeting, to `SUBSCRIBE` and to `PING`. From the first bytes on that are no reply, everything
//! reaches it, and it finds the error.
//!
//! Reads are as long as the crate's own would be: the buffer is as large, and what is understood of an incomplete message
//! leaves it. So a simulated run is the same with and without this module.

use std::io;
use std::mem;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, ReadHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::resp::{Malformed, bulk_length, length_line, reply_length};
use squall_env::BoxStream;

/// Capacity of the buffer at first, in bytes.
const BUFFER_BYTES: usize = 8 * 1024;

/// The beginning of each message: an array of this word, the channel and the payload.
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n";

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel and the payload.
    bytes: Box<[u8]>,
    channel_bytes: usize,
}

impl Message {
    pub(super) fn new(channel: &[u8], payload: &[u8]) -> Self {
        Message { bytes: [channel, payload].concat().into(), channel_bytes: channel.len() }
    }

    /// Returns the name of the channel; `?` if it is not text.
    pub fn channel(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.channel_bytes]).unwrap_or("?")
    }

    /// Returns the payload.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.channel_bytes..]
    }
}

/// Splits the messages off `stream`. Returns a stream of the rest, and the messages. They arrive while the rest is read.
pub(super) fn split(stream: BoxStream) -> (BoxStream, UnboundedReceiver<Message>) {
    let (sender, messages) = unbounded_channel();
    let (stream, writing) = tokio::io::split(stream);
    let buffer = BytesMut::with_capacity(BUFFER_BYTES);
    let (message, other, passing) = (Incomplete::default(), Vec::new(), BytesMut::new());
    let rest = Rest { stream, buffer, message, other, passing, is_opaque: false, messages: sender };
    (Box::new(tokio::io::join(rest, writing)), messages)
}

/// The reading half without the messages.
struct Rest {
    stream: ReadHalf<BoxStream>,
    /// Bytes that were read and neither taken out nor passed on.
    buffer: BytesMut,
    /// The beginning of the message that the buffer continues.
    message: Incomplete,
    /// The beginning of another reply that the buffer continues.
    other: Vec<u8>,
    /// Bytes to be passed on.
    passing: BytesMut,
    /// True once something was read that is no reply.
    is_opaque: bool,
    messages: UnboundedSender<Message>,
}

impl Rest {
    /// Takes out the messages at the beginning of the buffer, up to the first bytes that are to be passed on.
    fn take_messages(&mut self) {
        while self.passing.is_empty() && !self.is_opaque && !self.buffer.is_empty() {
            match self.take_first() {
                // The receiver may be gone.
                Ok(Some(message)) => drop(self.messages.send(message)),
                Ok(None) if self.passing.is_empty() => return,
                Ok(None) => {}
                Err(Malformed) => self.is_opaque = true,
            }
        }
        if self.is_opaque {
            self.passing.extend_from_slice(&self.other);
            self.passing.extend_from_slice(&self.message.take());
            self.passing.extend_from_slice(&self.buffer);
            self.other.clear();
            self.buffer.clear();
        }
    }

    /// Returns the message at the beginning of the buffer, if it is complete. Any other complete reply is to be passed on.
    fn take_first(&mut self) -> Result<Option<Message>, Malformed> {
        if self.other.is_empty() && self.message.is_empty() {
            match Part::first_of(&self.buffer)? {
                Some(Part::Message { channel, payload, length }) => {
                    let message = Message::new(channel, payload);
                    self.buffer.advance(length);
                    return Ok(Some(message));
                }
                Some(Part::Other { length }) => {
                    self.passing.extend_from_slice(&self.buffer[..length]);
                    self.buffer.advance(length);
                    return Ok(None);
                }
                None => {}
            }
        }
        if self.other.is_empty() {
            match self.message.continued_by(&mut self.buffer) {
                Ok(message) => return Ok(message),
                Err(NotAMessage) => self.other = self.message.take(),
            }
        }
        self.continue_other().map(|()| None)
    }

    /// Takes the rest of a reply that is no message from the buffer, as far as it is there.
    fn continue_other(&mut self) -> Result<(), Malformed> {
        let before = self.other.len();
        self.other.extend_from_slice(&self.buffer);
        let length = reply_length(&self.other);
        let taken = match length {
            Ok(Some(length)) => length - before,
            Ok(None) | Err(Malformed) => self.buffer.len(),
        };
        self.buffer.advance(taken);
        if let Some(length) = length? {
            self.passing.extend_from_slice(&self.other[..length]);
            self.other.clear();
        }
        Ok(())
    }
}

impl AsyncRead for Rest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.take_messages();
            if !this.passing.is_empty() {
                let passed = this.passing.len().min(buf.remaining());
                buf.put_slice(&this.passing[..passed]);
                this.passing.advance(passed);
                return Poll::Ready(Ok(()));
            }
            this.buffer.reserve(1);
            let read = ready!(pin!(this.stream.read_buf(&mut this.buffer)).poll(cx))?;
            if read == 0 {
                if this.buffer.is_empty() && this.message.is_empty() && this.other.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // The beginning of a reply, without its end.
                this.is_opaque = true;
            }
        }
    }
}

/// The elements of a message.
enum Element {
    Text(&'static [u8]),
    /// The length of the next word, and the end of the line.
    Length,
    Word,
}

const ELEMENTS: [Element; 14] = {
    use Element::{Length, Text, Word};
    const END: Element = Text(b"\r\n");
    const BULK: Element = Text(b"$");
    [
        Text(b"*"),
        Text(b"3\r\n"),
        BULK,
        Text(b"7\r\n"),
        Text(b"message"),
        END,
        BULK,
        Length,
        Word,
        END,
        BULK,
        Length,
        Word,
        END,
    ]
};

/// The elements that were read of an incomplete message.
#[derive(Debug, Default)]
struct Incomplete {
    bytes: Vec<u8>,
    elements: usize,
    /// Length of the next word.
    length: usize,
    channel: Range<usize>,
    payload: Range<usize>,
}

/// Bytes that are not those of a message.
struct NotAMessage;

impl Incomplete {
    fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// Returns the bytes that were read, and begins again.
    fn take(&mut self) -> Vec<u8> {
        mem::take(self).bytes
    }

    /// Takes the next elements from `buffer`, as far as they are complete. Returns the message after the last one.
    fn continued_by(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, NotAMessage> {
        while let Some(element) = ELEMENTS.get(self.elements) {
            let length = match element {
                Element::Text(text) if buffer.starts_with(text) => text.len(),
                Element::Text(text) if text.starts_with(buffer) => return Ok(None),
                Element::Text(_) => return Err(NotAMessage),
                Element::Length => {
                    let Some((end, length)) = length_line(buffer).map_err(|Malformed| NotAMessage)? else {
                        return Ok(None);
                    };
                    self.length = length;
                    end
                }
                Element::Word if buffer.len() < self.length => return Ok(None),
                Element::Word => {
                    self.channel = mem::replace(&mut self.payload, self.bytes.len()..self.bytes.len() + self.length);
                    self.length
                }
            };
            self.bytes.extend_from_slice(&buffer[..length]);
            buffer.advance(length);
            self.elements += 1;
        }
        let Incomplete { bytes, channel, payload, .. } = mem::take(self);
        Ok(Some(Message::new(&bytes[channel], &bytes[payload])))
    }
}

/// The first part of what was read.
enum Part<'a> {
    Message {
        channel: &'a [u8],
        payload: &'a [u8],
        length: usize,
    },
    /// Any other reply.
    Other {
        length: usize,
    },
}

impl<'a> Part<'a> {
    /// Returns the reply at the beginning of `bytes`; `None` if it is incomplete.
    fn first_of(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(words) = bytes.strip_prefix(MESSAGE).filter(|words| words.first() == Some(&b'$')) else {
            return Ok(reply_length(bytes)?.map(|length| Part::Other { length }));
        };
        let Some((channel, rest)) = bulk(words)? else { return Ok(None) };
        let Some((payload, rest)) = bulk(rest)? else { return Ok(None) };
        Ok(Some(Part::Message { channel, payload, length: bytes.len() - rest.len() }))
    }
}

/// A bulk string, and what follows it.
type Bulk<'a> = (&'a [u8], &'a [u8]);

/// Returns the bulk string at the beginning of `bytes`; `None` if it is incomplete.
fn bulk(bytes: &[u8]) -> Result<Option<Bulk<'_>>, Malformed> {
    let Some((start, length)) = bulk_length(bytes)? else { return Ok(None) };
    let Some(word) = bytes[start..].get(..length + 2) else { return Ok(None) };
    if !word.ends_with(b"\r\n") {
        return Err(Malformed);
    }
    Ok(Some((&word[..length], &bytes[start + word.len()..])))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::transport::redis::resp::Reply;

    /// Returns the messages in `bytes`, which arrive in pieces of this length, and the rest.
    async fn splits(bytes: &[u8], piece: usize) -> (Vec<(String, String)>, String) {
        let (near, mut far) = tokio::io::duplex(piece);
        let (mut rest, mut messages) = split(Box::new(near));
        let mut passed = String::new();
        let writing = async {
            far.write_all(bytes).await.unwrap();
            drop(far);
        };
        let (_, read) = tokio::join!(writing, rest.read_to_string(&mut passed));
        read.unwrap();
        drop(rest);
        let mut taken = Vec::new();
        while let Some(message) = messages.recv().await {
            let payload = String::from_utf8(message.payload().to_vec()).unwrap();
            taken.push((message.channel().to_owned(), payload));
        }
        (taken, passed)
    }

    #[tokio::test]
    async fn messages_are_taken_out_and_everything_else_is_passed_on() {
        let message = |payload: &'static str| Reply::message("hs", payload).to_bytes();
        let (subscribed, pong) = (Reply::subscribed("hs", 1).to_bytes(), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        let long = "x".repeat(3 * BUFFER_BYTES);
        let bytes = [
            &b"+OK\r\n"[..],
            &subscribed,
            &message("first"),
            &message("in\r\n$2\r\nits"),
            pong.as_bytes(),
            &Reply::message("hs", long.clone()).to_bytes(),
            &message(""),
        ];
        let bytes = bytes.concat();
        for piece in [1, 7, 1_000, 100_000] {
            let (messages, rest) = splits(&bytes, piece).await;
            let expected = ["first", "in\r\n$2\r\nits", &long, ""].map(|payload| ("hs".into(), payload.to_owned()));
            assert_eq!(messages, expected, "pieces of {piece}");
            assert_eq!(rest, format!("+OK\r\n{}{pong}", std::str::from_utf8(&subscribed).unwrap()));
        }
    }

    #[tokio::test]
    async fn from_the_first_bytes_that_are_no_reply_everything_is_passed_on() {
        let message = "*3\r\n$7\r\nmessage\r\n$2\r\nhs\r\n$1\r\nx\r\n";
        let cases = [
            "HTTP/1.1 400 Bad Request\r\n",
            "*3\r\n$7\r\nmessage\r\n:1\r\n$-2\r\n",
            "*3\r\n$7\r\nmessage\r\n$1\r\nhs\r\n",
        ];
        for bad in cases {
            let (messages, rest) = splits(format!("{message}{bad}{message}").as_bytes(), 10).await;
            assert_eq!((messages.len(), rest), (1, format!("{bad}{message}")));
        }
    }

    #[tokio::test]
    async fn the_beginning_of_a_message_without_its_end_is_passed_on() {
        let cut = "*3\r\n$7\r\nmessage\r\n$2\r\nhs\r\n$10\r\nx";
        assert_eq!(splits(cut.as_bytes(), 10).await, (Vec::new(), cut.to_owned()));
    }
}
