//! The part of the judgement that differs with the delivery of a stream.

use super::violation::Violation;
use crate::pending::PendingReason;
use crate::topology::FollowerKey;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, Token};

/// The rows that one writer wrote to one stream, and the progress of each follower.
///
/// The keys given to these functions are of that writer and stream. A follower that has not reported its first position is
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
    fn following(&mut self, instance: &InstanceName, position: Token);
    /// Records that an instance's process ended, with all that it had applied.
    fn gone(&mut self, instance: &InstanceName);
    /// Judges a follower that applied all rows of `token`.
    fn applied(&mut self, key: &FollowerKey, token: Token, rows: &[Row]) -> Result<(), Violation>;
    /// Judges a follower whose position moved or was confirmed.
    fn positioned(&mut self, key: &FollowerKey, position: Token) -> Result<(), Violation>;
    /// Judges a follower that dropped all that it had applied.
    fn reset(&mut self, key: &FollowerKey, position: Token) -> Result<(), Violation>;
    /// Returns the rows that a follower lacks. `highest` is the highest token of the stream over all writers.
    fn lack(&self, instance: &InstanceName, highest: Option<Token>) -> Option<PendingReason>;
}
