//! A stream whose rows are in the database, as one instance sees it: its writers' positions, and access to their rows.

use std::rc::Rc;

use super::cache_view::CacheViews;
use super::stream::{Stream, UpdateError};
use crate::store::{Checked, Database, IdGenerator, Source, UpdatesQuery};
use squall_env::LocalBoxFuture;
use squall_protocol::rows::{ROWS_TARGET, Row, Updates};
use squall_protocol::{Delivery, InstanceName, StreamName, Token};

/// A stream whose rows are in the database, on one instance.
pub struct DatabaseStream {
    source: Source,
    name: StreamName,
    ids: Rc<IdGenerator>,
    database: Database,
    cache_views: CacheViews,
    rows_per_query: usize,
}

impl DatabaseStream {
    /// Creates the stream whose tokens come from `ids` and whose rows are in `database`. Rows that arrive are applied to
    /// `cache_views`.
    pub fn new(source: Source, ids: Rc<IdGenerator>, database: Database, cache_views: CacheViews) -> Self {
        DatabaseStream { source, name: source.name.into(), ids, database, cache_views, rows_per_query: ROWS_TARGET }
    }

    /// Returns the stream with another number of rows that one query aims to return.
    pub fn with_rows_per_query(self, rows_per_query: usize) -> Self {
        DatabaseStream { rows_per_query, ..self }
    }
}

impl Stream for DatabaseStream {
    fn name(&self) -> &StreamName {
        &self.name
    }

    fn delivery(&self) -> Delivery {
        self.source.delivery
    }

    fn writers(&self) -> &[InstanceName] {
        self.ids.writers()
    }

    fn position(&self, writer: &InstanceName) -> Token {
        if writer == self.ids.instance() {
            self.ids.current_token_for_writer(writer)
        } else {
            // Not the inferred position: a row that is inferred to be settled may still be on its way to this instance.
            self.ids.received_position(writer)
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
            return Box::pin(std::future::ready(Ok(Updates::empty(upto))));
        }
        let database = self.database.clone();
        let writer = writer.clone();
        let Source { updates, transaction, .. } = self.source;
        let rows_max = self.rows_per_query;
        let read =
            move |tx: &rusqlite::Transaction<'_>| updates(tx, UpdatesQuery { writer: &writer, from, upto, rows_max });
        Box::pin(async move { Ok(database.transaction(transaction, read).await?) })
    }

    fn apply(&self, _writer: &InstanceName, token: Token, rows: &[Row]) {
        self.cache_views.apply(token, rows);
    }

    fn advance_by_row(&self, writer: &InstanceName, token: Token) {
        self.ids.advance_by_row(writer, token);
    }

    fn advance(&self, writer: &InstanceName, token: Token) {
        self.ids.advance(writer, token);
    }

    fn check(&self, token: Token) -> LocalBoxFuture<'static, Result<Checked, UpdateError>> {
        let ids = Rc::clone(&self.ids);
        Box::pin(async move { Ok(ids.check(token).await?) })
    }

    /// Does nothing: tokens of a stream in the database never go back.
    fn reset(&self, _writer: &InstanceName) {}
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::IdGeneratorOptions;
    use crate::store::account_data::{self, Datum};
    use crate::store::memory::MemoryBackend;

    #[tokio::test]
    async fn an_answer_has_about_as_many_rows_as_one_query_aims_to_return() {
        let backend = MemoryBackend::open();
        let writer = InstanceName::from("writer");
        let options = IdGeneratorOptions {
            stream: account_data::SOURCE.name.into(),
            instance: "worker".into(),
            writers: vec![writer.clone()],
            sequence: account_data::SOURCE.sequence,
            tables: account_data::SOURCE.tables,
            shares_database: true,
            poke: Default::default(),
        };
        let ids = IdGenerator::load(backend.database(), options).await.unwrap();
        for token in (2..=6).map(Token) {
            let (by, kind) = (writer.clone(), format!("kind{token}"));
            let datum = Datum { user_id: "@user:hs".into(), room_id: None, kind, content: json!({}) };
            let set = move |tx: &rusqlite::Transaction<'_>| account_data::set(tx, &by, token, &datum);
            backend.database().transaction("set", set).await.unwrap();
        }
        let stream = DatabaseStream::new(account_data::SOURCE, ids, backend.database(), CacheViews::default());
        let all = stream.updates(&writer, Token(1), Token(6)).await.unwrap();
        assert_eq!((all.rows.len(), all.upto, all.limited), (5, Token(6), false));
        let stream = stream.with_rows_per_query(2);
        let part = stream.updates(&writer, Token(1), Token(6)).await.unwrap();
        assert_eq!((part.rows.len(), part.upto, part.limited), (2, Token(3), true));
    }
}
