//! Takes published messages out of a subscription, before the `redis` crate parses it.
//!
//! The crate's parser takes thousands of instructions for a message, and several allocations. Nearly everything that a
//! subscription carries is messages, and they all have one form. So they are taken out here, and only the rest reaches the
//! crate: the answers to the greeting, to `SUBSCRIBE` and to `PING`. From the first bytes on that are no reply, everything
//! reaches it, and it finds the error.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::resp::{Malformed, bulk_length, reply_length};
use crate::transport::altered::{Alter, Altered};
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
    let buffer = BytesMut::with_capacity(BUFFER_BYTES);
    let rest = Rest { buffer, passing: BytesMut::new(), is_opaque: false, messages: sender };
    (Box::new(Altered { stream, alter: rest }), messages)
}

/// The input without the messages.
struct Rest {
    /// Bytes that were read and neither taken out nor passed on.
    buffer: BytesMut,
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
            match Part::first_of(&self.buffer) {
                Ok(Some(Part::Message { channel, payload, length })) => {
                    // The receiver may be gone.
                    let _ = self.messages.send(Message::new(channel, payload));
                    self.buffer.advance(length);
                }
                Ok(Some(Part::Other { length })) => self.passing = self.buffer.split_to(length),
                Ok(None) => return,
                Err(Malformed) => self.is_opaque = true,
            }
        }
        if self.is_opaque && self.passing.is_empty() {
            self.passing = self.buffer.split();
        }
    }
}

impl Alter for Rest {
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut BoxStream>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.take_messages();
            if !self.passing.is_empty() {
                let passed = self.passing.len().min(buf.remaining());
                buf.put_slice(&self.passing[..passed]);
                self.passing.advance(passed);
                return Poll::Ready(Ok(()));
            }
            self.buffer.reserve(1);
            let read = ready!(pin!(stream.read_buf(&mut self.buffer)).poll(cx))?;
            if read == 0 {
                if self.buffer.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // The beginning of a reply, without its end.
                self.is_opaque = true;
            }
        }
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
