//! A stream as one instance has it, whether it writes it or follows it.

use crate::env::LocalBoxFuture;
use crate::protocol::{InstanceName, StreamName, Token};

use super::{Promise, Row, UpdateError, Updates};

/// A stream of rows with tokens, written by one or several instances and followed by all others.
pub trait Stream {
    /// Its name on the wire.
    fn name(&self) -> &StreamName;

    /// What followers may count on.
    fn promise(&self) -> Promise;

    /// The configured writers.
    fn writers(&self) -> &[InstanceName];

    /// How far this instance has taken in `writer`'s rows. For the instance itself: how far its own rows may be
    /// announced, that is, the token up to which nothing of its own is still uncommitted.
    fn position(&self, writer: &InstanceName) -> Token;

    /// On the writer itself: none of its rows has a higher token than this. Its position may be ahead of that, because
    /// other writers' tokens went by.
    fn written_upto(&self, writer: &InstanceName) -> Token;

    /// `writer`'s rows in `(from, upto]` from the source of truth: the database, or the writer's memory. One call may
    /// not bring all of them; see [`Updates`].
    fn updates(
        &self,
        writer: &InstanceName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>>;

    /// Makes whatever this instance keeps in memory agree with `rows`. Called before the position moves:
    /// whoever sees the new position must not see older state (Synapse #14723).
    fn take(&self, writer: &InstanceName, token: Token, rows: &[Row]);

    /// Moves the position of `writer` forward to `token`, because rows of that token have been taken in.
    fn advance_by_row(&self, writer: &InstanceName, token: Token) {
        self.advance(writer, token);
    }

    /// Moves the position of `writer` forward to `token`, which it announced. There need not be a row of that token.
    fn advance(&self, writer: &InstanceName, token: Token);

    /// Forgets all rows of `writer` and goes back to the beginning. Only for [`Promise::Memory`].
    fn reset(&self, writer: &InstanceName);
}
