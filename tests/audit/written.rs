//! What the recorded writers had written before they told of it: the rows in the database, where they have one, and in
//! `writer1`'s memory.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rusqlite::Connection;
use squall::env::LocalBoxFuture;
use squall::protocol::{InstanceName, StreamName, Token};
use squall::store::{Backend, Database, DatabaseError, Job, schema};
use squall::streams::{RemoteUpdates, Row, UpdateError, Updates};

use crate::rows::put;

/// Everything that was written so far.
#[derive(Clone)]
pub struct Written {
    connection: Rc<RefCell<Connection>>,
    /// Which tokens of the database are in it: what is told again was written once.
    tokens: Rc<RefCell<BTreeSet<(&'static str, Token)>>>,
    typing: Rc<RefCell<Vec<(Token, Row)>>>,
    asked: Rc<RefCell<BTreeSet<&'static str>>>,
}

impl Written {
    pub fn nothing() -> Self {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection).unwrap();
        Written {
            connection: Rc::new(RefCell::new(connection)),
            tokens: Rc::default(),
            typing: Rc::default(),
            asked: Rc::default(),
        }
    }

    pub fn database(&self) -> Database {
        Database::new(Rc::new(self.clone()))
    }

    /// The names of the transactions that were asked for.
    pub fn asked(&self) -> BTreeSet<&'static str> {
        self.asked.borrow().clone()
    }

    /// The writer of `typing` was started again, or stands where it stood.
    pub fn typing_is_at(&self, position: Token) {
        self.typing.borrow_mut().retain(|(token, _)| *token <= position);
    }

    /// `writer` has written all rows of one token.
    pub fn write(&self, writer: &InstanceName, token: Token, rows: &[Row]) {
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
            put(&tx, writer, token, row).expect("what Synapse could write can be written");
        }
        tx.commit().unwrap();
    }
}

impl Backend for Written {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        self.asked.borrow_mut().insert(job.name);
        Box::pin(std::future::ready(job.execute(&mut self.connection.borrow_mut())))
    }
}

/// `writer1`, asked by HTTP.
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
