//! Waiting until this instance has seen what another one wrote.
//!
//! Whoever asked another instance to write something, and then reads here, must see it: they wait until the position of
//! (stream, writer) has reached what was written (Synapse #7542). The position is the writer's own, not that of whoever
//! else writes the stream (Synapse #14856). What a process that has ended had written in memory is seen as it is, too:
//! gone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use super::Consumer;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::{Row, Stream};

/// How long a position may take to come.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a position was not seen to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WaitError {
    /// This instance has no such stream.
    #[error("there is no stream {0} to wait for")]
    UnknownStream(String),
    /// The instance is not among the stream's writers, so its position never moves.
    #[error("{writer} does not write {stream}, so there is nothing to wait for")]
    NotAWriter {
        /// The stream.
        stream: StreamName,
        /// The instance.
        writer: InstanceName,
    },
    /// It did not come in time.
    #[error("{stream} of {writer} did not reach {position} within {WAIT_TIMEOUT:?}: it is at {current}")]
    Timeout {
        /// The stream.
        stream: StreamName,
        /// Whose rows are missing.
        writer: InstanceName,
        /// What was waited for.
        position: Token,
        /// How far it came.
        current: Token,
    },
}

/// Everybody who waits on one instance.
pub struct Waiters {
    instance: InstanceName,
    streams: Vec<Rc<dyn Stream>>,
    waiting: RefCell<BTreeMap<FeedKey, Queue>>,
    waits_begun: Cell<u64>,
}

type FeedKey = (StreamName, InstanceName);
/// By position, so that those that a new position wakes stand at the front; several may wait for the same position
/// (Synapse #8196).
type Queue = BTreeMap<(Token, u64), oneshot::Sender<()>>;

impl Waiters {
    /// Waits on the positions of `streams`, as `instance` has them. Must be registered as a consumer.
    pub fn new(instance: InstanceName, streams: Vec<Rc<dyn Stream>>) -> Rc<Self> {
        Rc::new(Waiters { instance, streams, waiting: RefCell::default(), waits_begun: Cell::new(0) })
    }

    /// Completes once `writer`'s rows of `stream` up to `position` have been taken in here. At once if that is the case,
    /// or if `writer` is this instance itself. Cancel-safe.
    pub async fn wait_for_stream_position(
        &self,
        stream: &str,
        writer: &InstanceName,
        position: Token,
    ) -> Result<(), WaitError> {
        if *writer == self.instance {
            return Ok(());
        }
        let followed = self.streams.iter().find(|known| known.name().as_str() == stream);
        let followed = followed.ok_or_else(|| WaitError::UnknownStream(stream.to_owned()))?;
        let (stream, writer) = (followed.name().clone(), writer.clone());
        if !followed.writers().contains(&writer) {
            return Err(WaitError::NotAWriter { stream, writer });
        }
        let reached = async {
            while followed.position(&writer) < position {
                self.woken((stream.clone(), writer.clone()), position).await;
            }
        };
        tokio::time::timeout(WAIT_TIMEOUT, reached).await.map_err(|_| {
            let current = followed.position(&writer);
            WaitError::Timeout { stream, writer, position, current }
        })
    }

    async fn woken(&self, key: FeedKey, position: Token) {
        let number = self.waits_begun.get();
        self.waits_begun.set(number + 1);
        let (wake, woken) = oneshot::channel();
        let waits = (position, number);
        self.waiting.borrow_mut().entry(key.clone()).or_default().insert(waits, wake);
        let _waiting = Waiting { waiters: self, key, waits };
        // Whoever wakes drops the other end, too.
        let _ = woken.await;
    }

    /// Wakes whoever waits for `position` or less.
    fn moved(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(queue) = waiting.get_mut(&(stream.clone(), writer.clone())) else { return };
        let later = queue.split_off(&(position.next(), 0));
        for (_, wake) in std::mem::replace(queue, later) {
            let _ = wake.send(());
        }
    }
}

/// One who waits. Leaves nothing behind when it is gone.
struct Waiting<'a> {
    waiters: &'a Waiters,
    key: FeedKey,
    waits: (Token, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.borrow_mut();
        if let Some(queue) = waiting.get_mut(&self.key) {
            queue.remove(&self.waits);
            if queue.is_empty() {
                waiting.remove(&self.key);
            }
        }
    }
}

impl Consumer for Waiters {
    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, _rows: &[Row]) {
        self.moved(stream, writer, token);
    }

    /// Positions move without rows, too (Synapse #9796).
    fn positioned(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        self.moved(stream, writer, position);
    }
}

#[cfg(test)]
mod tests;
