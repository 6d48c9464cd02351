//! Logs a write that holds a stream's position back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::observer::{Observer, OutstandingWrite};
use squall_env::TaskObserver;
use squall_protocol::{InstanceName, StreamName};

/// Age from which a write that the position waits for is slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Time between two looks at the writes.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The oldest outstanding write of each stream, each of which is logged once if it is slow.
#[derive(Default)]
pub(super) struct SlowWrites(RefCell<BTreeMap<StreamName, Watched>>);

struct Watched {
    write: OutstandingWrite,
    is_logged: bool,
}

impl TaskObserver for SlowWrites {}

impl Observer for SlowWrites {
    fn outstanding(&self, stream: &StreamName, _writer: &InstanceName, oldest: Option<&OutstandingWrite>) {
        let mut watched = self.0.borrow_mut();
        let Some(write) = oldest.cloned() else {
            watched.remove(stream);
            return;
        };
        let before = watched.remove(stream);
        // The same write may have got its ids.
        let is_logged = before.is_some_and(|before| before.is_logged && before.write.since == write.since);
        watched.insert(stream.clone(), Watched { write, is_logged });
    }
}

impl SlowWrites {
    /// Logs slow writes, for ever.
    pub(super) async fn watch(self: Rc<Self>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            for (stream, OutstandingWrite { token, operation, .. }) in self.next_slow() {
                let token = token.map(|token| token.0);
                tracing::warn!(%stream, token, operation, "a slow write holds the position of this instance back");
            }
        }
    }

    /// Returns the writes that have become slow since the last call.
    fn next_slow(&self) -> Vec<(StreamName, OutstandingWrite)> {
        let now = Instant::now();
        let mut slow = Vec::new();
        for (stream, watched) in &mut *self.0.borrow_mut() {
            if !watched.is_logged && now.duration_since(watched.write.since) >= SLOW_AFTER {
                watched.is_logged = true;
                slow.push((stream.clone(), watched.write.clone()));
            }
        }
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_protocol::Token;

    #[tokio::test(start_paused = true)]
    async fn a_write_is_slow_once() {
        let writes = SlowWrites::default();
        let stream = StreamName::from("events");
        let report = |oldest: Option<&OutstandingWrite>| writes.outstanding(&stream, &"writer1".into(), oldest);
        let mut first = OutstandingWrite { since: Instant::now(), token: None, operation: "persist_events" };
        report(Some(&first));
        tokio::time::advance(SLOW_AFTER / 2).await;
        assert_eq!(writes.next_slow(), []);
        tokio::time::advance(SLOW_AFTER / 2).await;
        assert_eq!(writes.next_slow(), [(stream.clone(), first.clone())]);
        first.token = Some(Token(7));
        report(Some(&first));
        assert_eq!(writes.next_slow(), [], "the same write");
        let second = OutstandingWrite { since: first.since + SLOW_AFTER / 2, token: Some(Token(8)), ..first };
        report(Some(&second));
        assert_eq!(writes.next_slow(), []);
        tokio::time::advance(SLOW_AFTER).await;
        assert_eq!(writes.next_slow(), [(stream.clone(), second.clone())]);
        let third = OutstandingWrite { since: Instant::now(), ..second };
        report(Some(&third));
        report(None);
        tokio::time::advance(SLOW_AFTER).await;
        assert_eq!(writes.next_slow(), [], "it has ended");
    }
}
