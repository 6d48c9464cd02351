//! Writers that the configuration does not name, of whose rows or positions an instance has heard.
//!
//! A writer is added to the configuration of a deployment, and an instance that runs still has the configuration of before.
//! It cannot follow the new writer, so its clients miss rows (Synapse #12374, #8419). An operator must learn of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use squall_protocol::{InstanceName, StreamName};

/// Largest number of writers that are remembered, with their streams.
pub const UNKNOWN_WRITERS_MAX: usize = 100;
/// Longest name of a writer that is remembered, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Time after which a writer counts as gone: a live one announces its position at least every five seconds.
pub const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// The writers, with their streams and the time of the last row or position. Its text is for an operator.
#[derive(Debug, Default)]
pub struct UnknownWriters(RefCell<BTreeMap<(StreamName, InstanceName), Instant>>);

impl UnknownWriters {
    /// Notes a row or a position of `writer`. Returns true for the first one of this stream.
    pub(crate) fn is_new(&self, stream: &StreamName, writer: &InstanceName) -> bool {
        let mut heard = self.0.borrow_mut();
        let key = (stream.clone(), writer.clone());
        let is_new = !heard.contains_key(&key);
        let is_kept = heard.len() < UNKNOWN_WRITERS_MAX && writer.as_str().len() <= NAME_BYTES_MAX;
        if is_new && !is_kept {
            return false;
        }
        heard.insert(key, Instant::now());
        is_new
    }

    /// Returns true if one of them was heard within [`HEARD_WITHIN`]. Rows are missed now.
    pub fn are_heard(&self) -> bool {
        self.0.borrow().values().any(|heard| heard.elapsed() <= HEARD_WITHIN)
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

impl fmt::Display for UnknownWriters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (stream, writer)) in self.0.borrow().keys().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{stream} of {writer}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_writer_of_a_stream_is_new_once() {
        let writers = UnknownWriters::default();
        assert!(writers.is_empty());
        assert!(writers.is_new(&"events".into(), &"writer3".into()));
        assert!(!writers.is_new(&"events".into(), &"writer3".into()));
        assert!(writers.is_new(&"caches".into(), &"writer3".into()));
        assert_eq!(writers.to_string(), "caches of writer3, events of writer3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_falls_silent_counts_as_gone_but_is_not_forgotten() {
        let writers = UnknownWriters::default();
        writers.is_new(&"events".into(), &"writer3".into());
        tokio::time::advance(HEARD_WITHIN).await;
        writers.is_new(&"events".into(), &"writer3".into());
        tokio::time::advance(HEARD_WITHIN).await;
        assert!(writers.are_heard());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!writers.are_heard() && !writers.is_empty());
    }

    #[test]
    fn a_peer_cannot_make_it_large() {
        let writers = UnknownWriters::default();
        assert!(!writers.is_new(&"events".into(), &"x".repeat(NAME_BYTES_MAX + 1).as_str().into()));
        for number in 0..2 * UNKNOWN_WRITERS_MAX {
            writers.is_new(&"events".into(), &number.to_string().as_str().into());
        }
        assert_eq!(writers.0.borrow().len(), UNKNOWN_WRITERS_MAX);
    }
}
