//! A database for unit tests: in memory, without delays.

use std::cell::RefCell;
use std::rc::Rc;

use rusqlite::Connection;

use super::database::{Backend, Database, DatabaseError, Job};
use super::schema;
use squall_env::LocalBoxFuture;

/// A backend that runs each transaction within the call.
pub(crate) struct MemoryBackend(RefCell<Connection>);

impl MemoryBackend {
    /// Opens an empty database.
    pub(crate) fn open() -> Rc<Self> {
        Rc::new(MemoryBackend(RefCell::new(empty())))
    }

    /// Returns a handle on it, without a session.
    pub(crate) fn database(self: &Rc<Self>) -> Database {
        Database::new(self.clone())
    }
}

impl Backend for MemoryBackend {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        Box::pin(std::future::ready(job.execute(&mut self.0.borrow_mut())))
    }
}

/// Opens an in-memory database with empty tables.
pub(crate) fn empty() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::prepare(&mut connection).unwrap();
    connection
}
