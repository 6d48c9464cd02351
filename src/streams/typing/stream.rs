//! The typing stream on one instance: in memory on its writer, fetched by HTTP from the writer elsewhere.

use std::rc::Rc;

use super::handler::TypingHandler;
use crate::streams::stream::{RemoteUpdates, Stream, UpdateError};
use squall_env::LocalBoxFuture;
use squall_protocol::rows::typing::NAME;
use squall_protocol::rows::{ROWS_TARGET, Row, Updates};
use squall_protocol::{Delivery, InstanceName, StreamName, Token};

/// The typing stream of one instance.
pub struct TypingStream {
    name: StreamName,
    writers: [InstanceName; 1],
    handler: Rc<TypingHandler>,
    /// The connection to the writer; `None` on the writer itself.
    remote: Option<Rc<dyn RemoteUpdates>>,
    rows_per_query: usize,
}

impl TypingStream {
    /// Creates the stream on its writer.
    pub fn on_writer(writer: InstanceName, handler: Rc<TypingHandler>) -> Self {
        TypingStream { name: NAME.into(), writers: [writer], handler, remote: None, rows_per_query: ROWS_TARGET }
    }

    /// Creates the stream on any other instance.
    pub fn on_follower(writer: InstanceName, handler: Rc<TypingHandler>, remote: Rc<dyn RemoteUpdates>) -> Self {
        TypingStream {
            name: NAME.into(),
            writers: [writer],
            handler,
            remote: Some(remote),
            rows_per_query: ROWS_TARGET,
        }
    }

    /// Returns the stream with another number of rows in one answer.
    pub fn with_rows_per_query(self, rows_per_query: usize) -> Self {
        TypingStream { rows_per_query, ..self }
    }
}

impl Stream for TypingStream {
    fn name(&self) -> &StreamName {
        &self.name
    }

    fn delivery(&self) -> Delivery {
        Delivery::Memory
    }

    fn writers(&self) -> &[InstanceName] {
        &self.writers
    }

    fn position(&self, _writer: &InstanceName) -> Token {
        self.handler.serial()
    }

    fn written_upto(&self, _writer: &InstanceName) -> Token {
        self.handler.serial()
    }

    fn forgotten_upto(&self) -> Token {
        self.handler.forgotten_upto()
    }

    fn updates(
        &self,
        writer: &InstanceName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        match &self.remote {
            Some(remote) => remote.updates(writer, &self.name, from, upto),
            None => {
                // A follower that fetches everything gets it in one answer. Between two answers a room of the first one might
                // be forgotten, and the second one would not show it.
                let rows_max = if from == Token(0) { usize::MAX } else { self.rows_per_query };
                let updates = self.handler.updates(from, upto, rows_max);
                Box::pin(async move { Ok(updates) })
            }
        }
    }

    fn apply(&self, _writer: &InstanceName, token: Token, rows: &[Row]) {
        for row in rows {
            if let Row::Typing(row) = row {
                self.handler.apply(token, row);
            }
        }
    }

    fn advance(&self, _writer: &InstanceName, token: Token) {
        self.handler.advance(token);
    }

    fn reset(&self, _writer: &InstanceName) {
        self.handler.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use squall_env::{Noop, TaskSpawner};

    /// Runs `test` with the stream on its writer, which answers with one row at a time.
    fn on_writer<F: Future>(test: impl FnOnce(TypingStream, Rc<TypingHandler>, TaskSpawner) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let handler = TypingHandler::default().with_typing_kept_ms(1_000, Rc::new(Noop));
        let handler = Rc::new(handler);
        let stream = TypingStream::on_writer("writer".into(), Rc::clone(&handler)).with_rows_per_query(1);
        let tasks = TaskSpawner::new(Rc::new(Noop));
        tokio::task::LocalSet::new().block_on(&runtime, test(stream, handler, tasks))
    }

    #[test]
    fn only_a_follower_that_fetches_everything_is_answered_in_one_piece() {
        on_writer(|stream, handler, tasks| async move {
            for room_id in ["!a", "!b", "!c"] {
                handler.started(&tasks, room_id, "@x", Duration::from_secs(30));
            }
            let writer = "writer".into();
            let all = stream.updates(&writer, Token(0), Token(3)).await.unwrap();
            assert_eq!((all.rows.len(), all.upto, all.limited), (3, Token(3), false));
            let part = stream.updates(&writer, Token(1), Token(3)).await.unwrap();
            assert_eq!((part.rows.len(), part.upto, part.limited), (1, Token(2), true));
        });
    }

    #[test]
    fn the_stream_tells_up_to_where_rooms_were_forgotten_and_forgets_all_when_reset() {
        on_writer(|stream, handler, tasks| async move {
            handler.started(&tasks, "!a", "@x", Duration::from_secs(30));
            let emptied = handler.stopped("!a", "@x");
            tokio::time::sleep(Duration::from_secs(2)).await;
            handler.started(&tasks, "!b", "@x", Duration::from_secs(30));
            assert_eq!(stream.forgotten_upto(), emptied);
            let writer = "writer".into();
            stream.reset(&writer);
            assert_eq!((stream.position(&writer), handler.resets()), (Token(0), 1));
            assert!(handler.typing_in("!b").is_empty());
        });
    }
}
