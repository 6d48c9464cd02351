//! The events stream as one instance has it: its writers' positions and the way to their rows.

use std::rc::Rc;

use crate::env::LocalBoxFuture;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::store::{Database, IdGenerator};
use crate::streams::{Promise, ROWS_TARGET, Row, Stream, UpdateError, Updates};

/// The events stream of one instance.
pub struct EventsStream {
    name: StreamName,
    writers: Vec<InstanceName>,
    ids: Rc<IdGenerator>,
    database: Database,
}

impl EventsStream {
    /// The stream whose tokens `ids` gives out and whose rows lie in `database`.
    pub fn new(writers: Vec<InstanceName>, ids: Rc<IdGenerator>, database: Database) -> Self {
        EventsStream { name: super::NAME.into(), writers, ids, database }
    }
}

impl Stream for EventsStream {
    fn name(&self) -> &StreamName {
        &self.name
    }

    fn promise(&self) -> Promise {
        Promise::Log
    }

    fn writers(&self) -> &[InstanceName] {
        &self.writers
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
        let (database, writer) = (self.database.clone(), writer.clone());
        Box::pin(async move {
            let updates = database
                .transaction("events_updates", move |tx| super::updates(tx, &writer, from, upto, ROWS_TARGET))
                .await?;
            Ok(updates)
        })
    }

    /// Nothing is kept in memory of these rows yet, so there is nothing to make fresh.
    fn take(&self, _writer: &InstanceName, _token: Token, _rows: &[Row]) {}

    fn advance_by_row(&self, writer: &InstanceName, token: Token) {
        self.ids.advance_by_row(writer, token);
    }

    fn advance(&self, writer: &InstanceName, token: Token) {
        self.ids.advance(writer, token);
    }

    /// Tokens of a stream in the database never go back.
    fn reset(&self, _writer: &InstanceName) {}
}
