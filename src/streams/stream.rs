//! A stream as one instance sees it, on its writer and on its followers.

use std::error::Error;

use crate::store::Checked;
use squall_env::LocalBoxFuture;
use squall_protocol::rows::{Row, Updates};
use squall_protocol::{Delivery, InstanceName, StreamName, Token};

/// A failed catch-up query. The next one may succeed.
pub type UpdateError = Box<dyn Error>;

/// A stream of rows with tokens, written by one or several instances and followed by all others.
pub trait Stream {
    /// Returns its name on the wire.
    fn name(&self) -> &StreamName;

    /// Returns the guarantee to followers.
    fn delivery(&self) -> Delivery;

    /// Returns the configured writers.
    fn writers(&self) -> &[InstanceName];

    /// Returns the token up to which this instance has applied `writer`'s rows. For the instance itself: the token up to
    /// which its own rows may be announced, because none of them is still uncommitted.
    fn position(&self, writer: &InstanceName) -> Token;

    /// Returns, on the writer itself, the highest token of its own rows. Its position may be ahead of that, because it
    /// moves past other writers' tokens.
    fn written_upto(&self, writer: &InstanceName) -> Token;

    /// Returns, on the writer itself, the highest token of a row that it has dropped without a later row in its place. A
    /// follower that has not reached it may lack that row for ever, unless it fetches everything. Only for
    /// [`Delivery::Memory`].
    fn forgotten_upto(&self) -> Token {
        Token(0)
    }

    /// Returns `writer`'s rows in `(from, upto]` from the source of truth: the database, or the writer's memory. One call
    /// may return only the first part of them; see [`Updates`].
    fn updates(
        &self,
        writer: &InstanceName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>>;

    /// Applies `rows` to the state that this instance keeps in memory. Called before the position moves: a reader that
    /// sees the new position must not see older state (Synapse #14723).
    fn apply(&self, writer: &InstanceName, token: Token, rows: &[Row]);

    /// Moves the position of `writer` forward to `token`, because rows of that token have been applied.
    fn advance_by_row(&self, writer: &InstanceName, token: Token) {
        self.advance(writer, token);
    }

    /// Moves the position of `writer` forward to `token`, which it announced. There need not be a row of that token.
    fn advance(&self, writer: &InstanceName, token: Token);

    /// Checks a token that was heard of a writer, before anything is done because of it. By default every token is believed:
    /// only for streams whose followers ask the writer itself.
    fn check(&self, _token: Token) -> LocalBoxFuture<'static, Result<Checked, UpdateError>> {
        Box::pin(std::future::ready(Ok(Checked::Allocated)))
    }

    /// Drops all rows of `writer` and moves its position back to the beginning. Only for [`Delivery::Memory`].
    fn reset(&self, writer: &InstanceName);
}

/// Queries another instance for rows that only it has.
pub trait RemoteUpdates {
    /// Returns `writer`'s rows of `stream` in `(from, upto]`, under the contract of [`Updates`].
    fn updates(
        &self,
        writer: &InstanceName,
        stream: &StreamName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>>;
}
