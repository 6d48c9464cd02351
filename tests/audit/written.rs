//! The rows that the recorded writers had written before they sent them: in the database, or in the memory of `writer1`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rusqlite::Connection;
use squall::store::{Backend, Database, DatabaseError, Job, schema};
use squall::streams::{RemoteUpdates, UpdateError};
use squall_env::LocalBoxFuture;
use squall_protocol::rows::{Row, Updates};
use squall_protocol::{InstanceName, StreamName, Token};

use crate::rows::put;

/// Every row that was written so far.
#[derive(Clone)]
pub(crate) struct Written {
    connection: Rc<RefCell<Connection>>,
    /// The tokens in the database. A row that is sent again was written once.
    tokens: Rc<RefCell<BTreeSet<(&'static str, Token)>>>,
    typing: Rc<RefCell<Vec<(Token, Row)>>>,
    transactions: Rc<RefCell<BTreeSet<&'static str>>>,
}

impl Written {
    pub(crate) fn empty() -> Self {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection).unwrap();
        Written {
            connection: Rc::new(RefCell::new(connection)),
            tokens: Rc::default(),
            typing: Rc::default(),
            transactions: Rc::default(),
        }
    }

    pub(crate) fn database(&self) -> Database {
        Database::new(Rc::new(self.clone()))
    }

    /// Returns the names of the transactions that were run.
    pub(crate) fn transactions(&self) -> BTreeSet<&'static str> {
        self.transactions.borrow().clone()
    }

    /// Notes the position of the writer of `typing`. After a restart the position is lower, and later rows are gone.
    pub(crate) fn typing_is_at(&self, position: Token) {
        self.typing.borrow_mut().retain(|(token, _)| *token <= position);
    }

    /// Writes all rows of one token of `writer`.
    pub(crate) fn write(&self, writer: &InstanceName, token: Token, rows: &[Row]) {
        let stream = rows[0].stream();
        if let Row::Typing(_) = rows[0] {
            return self.typing.borrow_mut().extend(rows.iter().map(|row| (token, row.clone())));
        }
        if !self.tokens.borrow_mut().insert((stream, token)) {
            return;
        }
        let mut connection = self.connection.borrow_mut();
        let tx = connection.transaction().unwrap();
        for row in rows {
            put(&tx, writer, token, row).expect("a row that Synapse wrote can be written");
        }
        tx.commit().unwrap();
    }
}

impl Backend for Written {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        self.transactions.borrow_mut().insert(job.name);
        Box::pin(std::future::ready(job.execute(&mut self.connection.borrow_mut())))
    }
}

/// The answers of `writer1` to HTTP requests.
impl RemoteUpdates for Written {
    fn updates(
        &self,
        _writer: &InstanceName,
        stream: &StreamName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        assert_eq!(stream.as_str(), "typing");
        let rows = self.typing.borrow().iter().filter(|(token, _)| from < *token && *token <= upto).cloned().collect();
        Box::pin(std::future::ready(Ok(Updates { rows, upto, limited: false })))
    }
}
