//! A stream whose rows lie in the database, as one instance has it: its writers' positions and the way to their rows.

use std::rc::Rc;

use rusqlite::Connection;

use super::{Keepers, Promise, ROWS_TARGET, Row, Stream, UpdateError, Updates};
use crate::env::LocalBoxFuture;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::store::{Database, IdGenerator};

/// Where the rows of a stream lie: the same for every instance of every deployment.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The stream's name on the wire.
    pub name: &'static str,
    /// What followers may count on.
    pub promise: Promise,
    /// The sequence its tokens come from.
    pub sequence: &'static str,
    /// The tables that hold its rows, each with its token's column.
    pub tables: &'static [(&'static str, &'static str)],
    /// The rows of one writer in `(from, upto]`, about as many as the last argument says.
    pub updates: fn(&Connection, &InstanceName, Token, Token, usize) -> rusqlite::Result<Updates>,
    /// The name of the transaction that asks for them.
    pub transaction: &'static str,
}

/// A stream of one instance.
pub struct DatabaseStream {
    source: Source,
    name: StreamName,
    ids: Rc<IdGenerator>,
    database: Database,
    keepers: Keepers,
}

impl DatabaseStream {
    /// The stream whose tokens `ids` gives out and whose rows lie in `database`. Rows that come in are told to
    /// `keepers`.
    pub fn new(source: Source, ids: Rc<IdGenerator>, database: Database, keepers: Keepers) -> Self {
        DatabaseStream { source, name: source.name.into(), ids, database, keepers }
    }
}

impl Stream for DatabaseStream {
    fn name(&self) -> &StreamName {
        &self.name
    }

    fn promise(&self) -> Promise {
        self.source.promise
    }

    fn writers(&self) -> &[InstanceName] {
        self.ids.writers()
    }

    fn position(&self, writer: &InstanceName) -> Token {
        if writer == self.ids.instance() {
            self.ids.current_token_for_writer(writer)
        } else {
            // Not what can be inferred: a row that is inferred to be settled may still be on its way to us.
            self.ids.told_by(writer)
        }
    }

    fn written_upto(&self, _writer: &InstanceName) -> Token {
        self.ids.last_own_token()
    }

    fn updates(
        &self,
        writer: &InstanceName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        if from >= upto {
            return Box::pin(std::future::ready(Ok(Updates::none(upto))));
        }
        let (database, writer) = (self.database.clone(), writer.clone());
        let Source { updates, transaction, .. } = self.source;
        let read = move |tx: &rusqlite::Transaction<'_>| updates(tx, &writer, from, upto, ROWS_TARGET);
        Box::pin(async move { Ok(database.transaction(transaction, read).await?) })
    }

    fn take(&self, _writer: &InstanceName, token: Token, rows: &[Row]) {
        self.keepers.take(token, rows);
    }

    fn advance_by_row(&self, writer: &InstanceName, token: Token) {
        self.ids.advance_by_row(writer, token);
    }

    fn advance(&self, writer: &InstanceName, token: Token) {
        self.ids.advance(writer, token);
    }

    /// Tokens of a stream in the database never go back.
    fn reset(&self, _writer: &InstanceName) {}
}
