//! One end speaks TLS, and the other one does not: the first bytes show it.
//!
//! Neither end can read a word of the other one. Without this, the log has only what follows: a line that is not UTF-8, an
//! invalid HTTP method, a connection that was reset (Synapse #16998).
//!
//! A record of TLS begins with its type and with 3, the major version. A client begins with a handshake, and a server
//! answers what it cannot read with an alert. No text begins like either.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::io::{AsyncRead, ReadBuf};

use super::altered::{Alter, Altered};
use crate::errors::causes;
use squall_env::BoxStream;

/// The types of the records with which the ends of a connection begin.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// The major version of every record.
const VERSION: u8 = 3;

/// A connection of which one end speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum TlsMismatch {
    /// The client does, and this port does not.
    #[error("the client speaks TLS, and this port does not: let the client connect without TLS")]
    Client,
    /// The server does, and was addressed without it.
    #[error("the port speaks TLS, and was addressed without it")]
    Server,
}

/// Returns true if an error comes from a [`TlsMismatch`].
pub(crate) fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
    let is_mismatch = |error: &(dyn Error + 'static)| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<TlsMismatch>())
    };
    is_mismatch(error) || causes(error).any(is_mismatch)
}

/// The input of a stream without TLS. Its first read fails if the other end speaks TLS.
pub(crate) struct Plain {
    /// The error if it does.
    mismatch: TlsMismatch,
    /// The first bytes that were read, up to two.
    first: [u8; 2],
    seen: usize,
    notice: Notice,
}

/// A note that a stream's read has failed because of a [`TlsMismatch`]. hyper's server takes an error of the first read for
/// an ordinary end, and does not return it.
#[derive(Clone, Default)]
pub(crate) struct Notice(Arc<AtomicBool>);

impl Notice {
    /// Returns true if the read has failed.
    pub(crate) fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Plain {
    /// Returns a stream that a client has opened to this instance.
    pub(crate) fn accepted(stream: BoxStream) -> (BoxStream, Notice) {
        let notice = Notice::default();
        (Plain::boxed(stream, TlsMismatch::Client, notice.clone()), notice)
    }

    /// Returns a stream that this instance has opened to a server.
    pub(crate) fn connected(stream: BoxStream) -> BoxStream {
        Plain::boxed(stream, TlsMismatch::Server, Notice::default())
    }

    fn boxed(stream: BoxStream, mismatch: TlsMismatch, notice: Notice) -> BoxStream {
        Box::new(Altered { stream, alter: Plain { mismatch, first: [0; 2], seen: 0, notice } })
    }

    /// Takes note of bytes that were read. Returns true once the first two begin a record.
    fn begins_a_record(&mut self, read: &[u8]) -> bool {
        let lacking = &mut self.first[self.seen..];
        let taken = lacking.len().min(read.len());
        if taken == 0 {
            return false;
        }
        lacking[..taken].copy_from_slice(&read[..taken]);
        self.seen += taken;
        self.seen == self.first.len() && matches!(self.first, [ALERT | HANDSHAKE, VERSION])
    }
}

impl Alter for Plain {
    fn poll_read(
        &mut self,
        stream: Pin<&mut BoxStream>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(stream.poll_read(cx, buf))?;
        if self.begins_a_record(&buf.filled()[before..]) {
            buf.set_filled(before);
            self.notice.0.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, self.mismatch)));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Reads what the other end sends in these pieces.
    async fn read(pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (mut far, near) = tokio::io::duplex(1);
        let (mut near, notice) = Plain::accepted(Box::new(near));
        let sent = pieces.concat();
        let sending = async move {
            // The reader may have given up.
            let _ = far.write_all(&sent).await;
        };
        let mut bytes = Vec::new();
        let (_, read) = tokio::join!(sending, near.read_to_end(&mut bytes));
        assert_eq!(notice.is_given(), read.is_err());
        read.map(|_| bytes)
    }

    #[tokio::test]
    async fn a_record_of_tls_is_an_error_that_names_it() {
        for record in [[HANDSHAKE, VERSION, 1], [ALERT, VERSION, 3]] {
            let error = read(&[&record]).await.unwrap_err();
            assert_eq!(error.to_string(), TlsMismatch::Client.to_string());
            assert!(is_cause_of(&error));
        }
    }

    #[tokio::test]
    async fn everything_else_is_read_as_it_is() {
        for text in [&b"PING 1\n"[..], b"", b"\x16", b"\x16\x16\x03", b"A\x16\x03", b"\x03\x16"] {
            assert_eq!(read(&[text]).await.unwrap(), text);
        }
        assert!(!is_cause_of(&io::Error::other("another")));
    }
}
