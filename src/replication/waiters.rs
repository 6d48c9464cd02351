//! Callers that wait until this instance has seen another one's write.
//!
//! A caller that asked another instance to write, and then reads here, must see the write. It waits until the position
//! of (stream, writer) has reached the write's token (Synapse #7542). The position is that writer's own, not that of the
//! stream's other writers (Synapse #14856). A wait for rows that an ended process held in memory completes too: the rows
//! are gone, and a read here shows that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Consumer;
use super::followers::FollowerKey;
use super::streamer::HEARTBEAT_INTERVAL;
use crate::streams::Stream;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, StreamName, Token};

/// Longest wait for a position.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The reason for which a wait ended without reaching its position.
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
    /// The position was not reached in time.
    #[error("{stream} of {writer} did not reach {position} within {WAIT_TIMEOUT:?}: it is at {current}{}", why(*is_held))]
    Timeout {
        /// The stream.
        stream: StreamName,
        /// The writer whose rows are missing.
        writer: InstanceName,
        /// The position that was waited for.
        position: Token,
        /// The position that was reached.
        current: Token,
        /// True if the writer goes on announcing a position below the one that was waited for.
        is_held: bool,
    },
}

/// Returns the probable cause of a wait that timed out, for its error.
fn why(is_held: bool) -> &'static str {
    match is_held {
        true => {
            ", which the writer still announces, so one of its writes must be outstanding: see \
             squall_oldest_outstanding_seconds there"
        }
        false => "",
    }
}

/// Age up to which an announcement counts as the writer's present position.
const ANNOUNCED_WITHIN: Duration = HEARTBEAT_INTERVAL.saturating_mul(2);

/// The callers that wait on one instance.
pub struct Waiters {
    instance: InstanceName,
    streams: Vec<Rc<dyn Stream>>,
    waiting: RefCell<BTreeMap<FollowerKey, Queue>>,
    /// The time of each writer's last announcement.
    announced: RefCell<BTreeMap<FollowerKey, Instant>>,
    waits_begun: Cell<u64>,
}

/// Waiting callers by position and number. A new position wakes those at the front. Several callers may wait for the same
/// position (Synapse #8196).
type Queue = BTreeMap<(Token, u64), oneshot::Sender<()>>;

impl Waiters {
    /// Returns the waiters on `instance`'s positions of `streams`. The caller must register it as a consumer.
    pub fn new(instance: InstanceName, streams: Vec<Rc<dyn Stream>>) -> Rc<Self> {
        Rc::new(Waiters {
            instance,
            streams,
            waiting: RefCell::default(),
            announced: RefCell::default(),
            waits_begun: Cell::new(0),
        })
    }

    /// Waits until `writer`'s rows of `stream` up to `position` have been applied on this instance. Completes at once if
    /// they already are, or if `writer` is this instance itself. Cancel-safe.
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
        let stream = followed.name().clone();
        let writer = writer.clone();
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
            let is_held = self.has_announced(&(stream.clone(), writer.clone()));
            WaitError::Timeout { stream, writer, position, current, is_held }
        })
    }

    /// Returns true if the writer has announced its position a short time ago. Rows are no announcement: the next one may be
    /// on its way.
    fn has_announced(&self, key: &FollowerKey) -> bool {
        self.announced.borrow().get(key).is_some_and(|at| at.elapsed() <= ANNOUNCED_WITHIN)
    }

    async fn woken(&self, key: FollowerKey, position: Token) {
        let number = self.waits_begun.get();
        self.waits_begun.set(number + 1);
        let (wake, woken) = oneshot::channel();
        let waits = (position, number);
        self.waiting.borrow_mut().entry(key.clone()).or_default().insert(waits, wake);
        let _waiting = Waiting { waiters: self, key, waits };
        // An error means that the sender was dropped, which wakes the caller too.
        let _ = woken.await;
    }

    /// Wakes the callers that wait for `position` or less.
    fn moved(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return;
        }
        let Some(queue) = waiting.get_mut(&(stream.clone(), writer.clone())) else { return };
        let later = queue.split_off(&(position.next(), 0));
        for (_, wake) in std::mem::replace(queue, later) {
            let _ = wake.send(());
        }
    }
}

/// A waiting caller's place in its queue, which is given up when this is dropped.
struct Waiting<'a> {
    waiters: &'a Waiters,
    key: FollowerKey,
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

    /// Positions move without rows too (Synapse #9796).
    fn positioned(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        self.announced.borrow_mut().insert((stream.clone(), writer.clone()), Instant::now());
        self.moved(stream, writer, position);
    }
}

#[cfg(test)]
mod tests;
