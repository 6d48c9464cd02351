//! The shared database of a test, in memory. Each transaction runs at once. The real database has a thread, for which a
//! paused clock would not wait.

use std::cell::RefCell;
use std::rc::Rc;

use squall::store::{Backend, Database, DatabaseError, Job, schema};
use squall_env::LocalBoxFuture;

struct InMemory(RefCell<rusqlite::Connection>);

impl Backend for InMemory {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        Box::pin(std::future::ready(job.execute(&mut self.0.borrow_mut())))
    }
}

/// Returns an empty database.
pub(crate) fn empty() -> Database {
    let mut connection = rusqlite::Connection::open_in_memory().unwrap();
    schema::prepare(&mut connection).unwrap();
    Database::new(Rc::new(InMemory(RefCell::new(connection))))
}
