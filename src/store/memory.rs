//! A database for unit tests: in memory, every transaction at once.

use std::cell::RefCell;
use std::rc::Rc;

use rusqlite::Connection;

use super::database::{Backend, Database, DatabaseError, Job};
use super::schema;
use crate::env::LocalBoxFuture;

/// Runs each transaction the moment it is asked for.
pub(crate) struct MemoryBackend(RefCell<Connection>);

impl MemoryBackend {
    /// An empty database.
    pub(crate) fn open() -> Rc<Self> {
        Rc::new(MemoryBackend(RefCell::new(empty())))
    }

    /// A handle on it, without a session.
    pub(crate) fn database(self: &Rc<Self>) -> Database {
        Database::new(self.clone())
    }
}

impl Backend for MemoryBackend {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        Box::pin(std::future::ready(job.execute(&mut self.0.borrow_mut())))
    }
}

/// An in-memory database that has its tables.
pub(crate) fn empty() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::prepare(&mut connection).unwrap();
    connection
}
