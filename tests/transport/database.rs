//! The shared database of a test, in memory. Each transaction runs at once, or takes as long as the test says. The
//! real database has a thread, for which a paused clock would not wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use squall::store::{Backend, Database, DatabaseError, Job, schema};
use squall_env::LocalBoxFuture;

/// Time that every transaction takes.
pub(crate) type Delay = Rc<Cell<Duration>>;

struct InMemory {
    connection: RefCell<rusqlite::Connection>,
    delay: Delay,
}

impl Backend for InMemory {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let result = job.execute(&mut self.connection.borrow_mut());
        let delay = self.delay.get();
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            result
        })
    }
}

/// Returns an empty database.
pub(crate) fn empty(delay: &Delay) -> Database {
    let mut connection = rusqlite::Connection::open_in_memory().unwrap();
    schema::prepare(&mut connection).unwrap();
    Database::new(Rc::new(InMemory { connection: RefCell::new(connection), delay: Rc::clone(delay) }))
}
