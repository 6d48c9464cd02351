//! The shared database of a test: in memory, each transaction at once. The real one has a thread, for which a paused
//! clock would not wait.

use std::cell::RefCell;
use std::rc::Rc;

use squall::env::LocalBoxFuture;
use squall::store::{Backend, Database, DatabaseError, Job, schema};

struct InMemory(RefCell<rusqlite::Connection>);

impl Backend for InMemory {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        Box::pin(std::future::ready(job.execute(&mut self.0.borrow_mut())))
    }
}

/// An empty database.
pub fn empty() -> Database {
    let mut connection = rusqlite::Connection::open_in_memory().unwrap();
    schema::prepare(&mut connection).unwrap();
    Database::new(Rc::new(InMemory(RefCell::new(connection))))
}
