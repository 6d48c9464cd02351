//! Rows that share a token with a row that has yet to arrive.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::followers::FollowerKey;
use squall_protocol::rows::Row;

/// The incomplete batches of one instance. They are kept by connection and writer too, because two writers' batches arrive
/// interleaved.
#[derive(Default)]
pub(super) struct Batches {
    pub(super) held: RefCell<BTreeMap<BatchKey, Batch>>,
}

type BatchKey = (u64, FollowerKey);

/// Rows whose token has yet to arrive.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    /// Memory of the rows, in bytes.
    pub(super) bytes: usize,
    /// True if a row could not be parsed, or if there are too many or too large ones. Then the whole batch is fetched from
    /// the source.
    pub(super) is_damaged: bool,
}

impl Batch {
    /// Returns a batch that is fetched from the source once its token arrives.
    pub(super) fn damaged() -> Self {
        Batch { is_damaged: true, ..Batch::default() }
    }
}

impl Batches {
    /// Removes and returns the batch that has arrived so far on this connection. It is empty if there is none.
    pub(super) fn take(&self, connection: u64, of: &FollowerKey) -> Batch {
        let mut held = self.held.borrow_mut();
        // Most rows have tokens of their own.
        if held.is_empty() { Batch::default() } else { held.remove(&(connection, of.clone())).unwrap_or_default() }
    }

    /// Holds a batch until its next row arrives.
    pub(super) fn hold(&self, connection: u64, of: &FollowerKey, batch: Batch) {
        self.held.borrow_mut().insert((connection, of.clone()), batch);
    }

    /// Damages the batch of this connection, if there is one.
    pub(super) fn damage(&self, connection: u64, of: &FollowerKey) {
        if let Some(batch) = self.held.borrow_mut().get_mut(&(connection, of.clone())) {
            *batch = Batch::damaged();
        }
    }

    /// Drops all batches of a connection.
    pub(super) fn drop_all_of(&self, connection: u64) {
        self.held.borrow_mut().retain(|(of, _), _| *of != connection);
    }
}
