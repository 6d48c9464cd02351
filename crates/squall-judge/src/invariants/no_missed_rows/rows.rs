//! The part of the judgement that differs with the delivery of a stream.

use super::violation::Violation;
use crate::names::{Follower, Instance, Names};
use crate::pending::PendingReason;
use crate::topology::FollowerKey;
#[cfg(test)]
use crate::topology::Topology;
#[cfg(test)]
use squall_protocol::Delivery;
use squall_protocol::Token;
use squall_protocol::rows::Row;

/// The place at which a step is judged: one follower.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub follower: Follower,
    pub names: &'a Names,
}

impl Place<'_> {
    /// Returns the names of the follower.
    pub(super) fn key(&self) -> FollowerKey {
        self.names.key_of(self.follower)
    }
}

#[cfg(test)]
impl Place<'static> {
    /// Returns the only follower of `stream` in a made-up deployment.
    pub(super) fn made_up(stream: &str, delivery: Delivery) -> Self {
        let topology = Topology::new(["worker".into()]).with_stream(stream, delivery, ["writer".into()]);
        let names: &Names = Box::leak(Box::new(Names::new(&topology)));
        let follower = names.configured().flat_map(|source| names.followers_of(source)).next();
        Place { follower: follower.expect("the writer has a follower"), names }
    }
}

/// The rows that one writer wrote to one stream, and the progress of each follower.
///
/// A follower that has not reported its first position is
/// pending, and not judged.
pub(super) trait Rows {
    /// Records that the writer began a new process.
    fn begun(&mut self) {}
    /// Records a row that the writer wrote.
    fn written(&mut self, token: Token, row: &Row);
    /// Records a row that another writer of the stream wrote.
    fn written_by_another(&mut self, _token: Token, _row: &Row) {}
    /// Records that a row was removed.
    fn removed(&mut self, _token: Token, _row: &Row) {}
    /// Returns the highest token written.
    fn highest(&self) -> Option<Token>;
    /// Records that an instance follows from `position` on.
    fn following(&mut self, instance: Instance, position: Token);
    /// Records that an instance's process ended, with all that it had applied.
    fn gone(&mut self, instance: Instance);
    /// Judges a follower that applied all rows of `token`.
    fn applied(&mut self, at: &Place<'_>, token: Token, rows: &[Row]) -> Result<(), Violation>;
    /// Judges a follower whose position moved or was confirmed.
    fn positioned(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation>;
    /// Judges a follower that dropped all that it had applied.
    fn reset(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation>;
    /// Returns the rows that a follower lacks. `highest` is the highest token of the stream over all writers.
    fn lack(&self, instance: Instance, highest: Option<Token>) -> Option<PendingReason>;
}
