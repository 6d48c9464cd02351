//! The announcements of syncing users that this process sends to the presence writer, and its id in them.
//!
//! A connection may be lost with lines in the outbox, in the kernel or unread by the peer. The process cannot know which
//! of them will still be read, or when: maybe after the first lines of the next connection. So after a loss it relies on
//! nothing that it sent. On every new connection it takes a new `instance_id`, clears its earlier ids, which is final
//! (see [`super::processes`]), and announces every syncing user again. Ends that were lost, or could not be sent, are
//! covered by that.
//!
//! An earlier id is cleared again with every new one, because the presence writer may have been away when it was cleared
//! first. It is dropped once the presence writer must have forgotten it by itself. An id under which nothing was announced
//! need not be cleared.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use super::PresenceHandler;
use crate::replication::Connection;
use squall_env::SeedTree;
use squall_protocol::{Command, SIGNS_OF_LIFE, UserSync};

/// Number of letters in an instance id after its prefix, as in Synapse.
const INSTANCE_ID_LETTERS: usize = 5;

/// Sends announcements to the presence writer.
pub(super) struct Announcements {
    /// The presence writer, if it is this instance.
    local: Option<Rc<PresenceHandler>>,
    connection: RefCell<Option<Rc<Connection>>>,
    seeds: SeedTree,
    ids_drawn: Cell<u64>,
    instance_id: RefCell<String>,
    /// True if something was announced under the id.
    is_used: Cell<bool>,
    /// The earlier ids under which something was announced, with the time at which each was given up.
    retired: RefCell<Vec<(String, Instant)>>,
    expiry: Duration,
    is_stopped: Cell<bool>,
}

impl Announcements {
    /// Returns announcements to `local` or, without it, to the presence writer that is connected later. The presence
    /// writer takes a process that is silent for `expiry` for dead.
    pub(super) fn new(local: Option<Rc<PresenceHandler>>, expiry: Duration, seeds: SeedTree) -> Self {
        let instance_id = draw_id(&seeds.child(0));
        Announcements {
            local,
            connection: RefCell::default(),
            seeds,
            ids_drawn: Cell::new(1),
            instance_id: RefCell::new(instance_id),
            is_used: Cell::new(false),
            retired: RefCell::default(),
            expiry,
            is_stopped: Cell::new(false),
        }
    }

    /// Returns the id that identifies this process to the presence writer now.
    pub(super) fn instance_id(&self) -> String {
        self.instance_id.borrow().clone()
    }

    /// Begins a new connection to the presence writer, with a new id. Announcements under the earlier ids are void, but for
    /// those that `announce_last` sends on the new connection under the last of them.
    pub(super) fn connected(&self, connection: &Rc<Connection>, announce_last: impl FnOnce()) {
        let is_first = self.connection.replace(Some(Rc::clone(connection))).is_none();
        announce_last();
        if !is_first {
            self.renew_id();
        }
        self.clear_retired(connection);
    }

    /// Takes a new id on the same connection, because the presence writer may have missed announcements.
    pub(super) fn missed(&self) {
        self.renew_id();
        if let Some(connection) = &*self.connection.borrow() {
            self.clear_retired(connection);
        }
    }

    fn renew_id(&self) {
        let ordinal = self.ids_drawn.get();
        self.ids_drawn.set(ordinal + 1);
        let id = self.instance_id.replace(draw_id(&self.seeds.child(ordinal)));
        if self.is_used.replace(false) {
            self.retired.borrow_mut().push((id, Instant::now()));
        }
    }

    fn clear_retired(&self, connection: &Connection) {
        let now = Instant::now();
        let mut retired = self.retired.borrow_mut();
        retired.retain(|(_, at)| now.duration_since(*at) < self.expiry);
        for (id, _) in &*retired {
            send(connection, &Command::ClearUserSync(id.clone()));
        }
    }

    /// Announces that a user's device began to sync, still does, or stopped. Without a connection the announcement is
    /// dropped, because the next connection begins with all syncing users.
    pub(super) fn send(&self, sync: UserSync) {
        if self.is_stopped.get() {
            return;
        }
        if let Some(local) = &self.local {
            local.user_sync(&sync);
        } else if let Some(connection) = &*self.connection.borrow() {
            self.is_used.set(true);
            send(connection, &Command::UserSync(sync));
        }
    }

    /// Clears this process's id and sends nothing after that. A connection that is closing may have discarded what was to be
    /// sent on it, so the earlier ids are cleared there again: no later connection will (seed 1002348 of `redis_swarm`).
    pub(super) fn stop(&self) {
        if self.is_stopped.replace(true) {
            return;
        }
        let Some(connection) = &*self.connection.borrow() else { return };
        let retired = self.retired.borrow();
        let lost = retired.iter().filter(|_| !connection.is_open()).map(|(id, _)| id.clone());
        for id in lost.chain([self.instance_id()]) {
            let sent = connection.send_last(&Command::ClearUserSync(id));
            debug_assert!(sent.is_ok(), "an id fits a line: {sent:?}");
        }
    }
}

fn send(connection: &Connection, command: &Command) {
    let sent = connection.send(command);
    debug_assert!(sent.is_ok(), "only announcements that fit a line are sent: {sent:?}");
}

fn draw_id(seeds: &SeedTree) -> String {
    let mut rng = seeds.rng();
    let letter = |n: u8| char::from(if n < 26 { b'a' + n } else { b'A' + n - 26 });
    let letters = (0..INSTANCE_ID_LETTERS).map(|_| letter(rng.random_range(0..52)));
    SIGNS_OF_LIFE.chars().chain(letters).collect()
}
