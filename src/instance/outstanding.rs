//! The writes of one stream whose ids are outstanding.
//!
//! The position of a writer waits for its oldest write, and with it every reader that waits for the writer's rows, of
//! whichever room they are (Synapse #16633). That cannot be helped: a position promises that nothing below it is to come.
//! But the observer is told of the oldest write, so that an operator can see it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::time::Instant;

use crate::observer::{Env, OutstandingWrite};
use squall_protocol::{InstanceName, StreamName, Token};

/// The writes of one stream whose ids are outstanding, by the order in which they began.
pub(super) struct Outstanding {
    stream: StreamName,
    writer: InstanceName,
    env: Env,
    begun: Cell<u64>,
    writes: RefCell<BTreeMap<u64, OutstandingWrite>>,
}

impl Outstanding {
    /// Returns that of a stream without outstanding ids.
    pub(super) fn new(stream: StreamName, writer: InstanceName, env: Env) -> Rc<Self> {
        env.observer.outstanding(&stream, &writer, None);
        Rc::new(Outstanding { stream, writer, env, begun: Cell::new(0), writes: RefCell::default() })
    }

    /// Begins the transaction called `operation`. Its ids count as outstanding until the returned value is dropped.
    pub(super) fn begin(self: &Rc<Self>, operation: &'static str) -> Held {
        let number = self.begun.get();
        self.begun.set(number + 1);
        let write = OutstandingWrite { since: Instant::now(), token: None, operation };
        self.change(|writes| {
            writes.insert(number, write);
        });
        Held { outstanding: Rc::clone(self), number }
    }

    /// Changes the writes, and tells the observer if that changes the oldest.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, OutstandingWrite>)) {
        let mut writes = self.writes.borrow_mut();
        let before = writes.first_key_value().map(|(_, write)| write.clone());
        change(&mut writes);
        let oldest = writes.first_key_value().map(|(_, write)| write);
        if oldest != before.as_ref() {
            self.env.observer.outstanding(&self.stream, &self.writer, oldest);
        }
    }
}

/// A write whose ids are outstanding until this is dropped.
pub(super) struct Held {
    outstanding: Rc<Outstanding>,
    number: u64,
}

impl Held {
    /// Notes the ids that the database has allocated.
    pub(super) fn allocated(&self, ids: &[Token]) {
        self.outstanding.change(|writes| {
            if let Some(write) = writes.get_mut(&self.number) {
                write.token = ids.first().copied();
            }
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.outstanding.change(|writes| {
            writes.remove(&self.number);
        });
    }
}
