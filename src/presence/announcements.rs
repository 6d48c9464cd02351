//! What the presence writer is told of who is syncing here, and under which id.
//!
//! A connection may be lost with lines in the outbox, in the kernel or unread at the other end, and nobody knows which
//! of them will still be read, or when: maybe after the first lines of the next connection. So nothing of what was
//! said on one connection is relied on once it is lost. On every new one the process takes a new `instance_id`,
//! clears the ones before, which is final (see [`super::processes`]), and says everything again. Ends that were said
//! in vain, or could not be said, are contained in that.
//!
//! An id is cleared on every new connection until that has certainly been read: the connection was set up, so the
//! `REPLICATE` behind it was answered; or until the presence writer must have forgotten the id by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use super::PresenceHandler;
use crate::env::Chance;
use crate::protocol::{Command, SIGNS_OF_LIFE, UserSync};
use crate::replication::Link;

/// How many letters an instance id has behind its prefix: as many as Synapse's have.
const INSTANCE_ID_LETTERS: usize = 5;

/// Tells the presence writer.
pub(super) struct Announcements {
    here: Option<Rc<PresenceHandler>>,
    link: RefCell<Option<Rc<Link>>>,
    chance: Chance,
    ids_drawn: Cell<u64>,
    instance_id: RefCell<String>,
    /// The ids of lost connections, with when they were given up.
    retired: RefCell<Vec<(String, Instant)>>,
    expiry: Duration,
    is_stopped: Cell<bool>,
}

impl Announcements {
    /// Tells `here`, or whoever is connected later. A process that is silent for `expiry` is forgotten there.
    pub fn new(here: Option<Rc<PresenceHandler>>, expiry: Duration, chance: Chance) -> Self {
        let instance_id = draw_id(&chance.of(0));
        Announcements {
            here,
            link: RefCell::default(),
            chance,
            ids_drawn: Cell::new(1),
            instance_id: RefCell::new(instance_id),
            retired: RefCell::default(),
            expiry,
            is_stopped: Cell::new(false),
        }
    }

    /// The id under which the presence writer knows this process now.
    pub fn instance_id(&self) -> String {
        self.instance_id.borrow().clone()
    }

    /// A new connection to the presence writer: what was said before it is void.
    pub fn connected(&self, link: &Rc<Link>) {
        let now = Instant::now();
        let mut retired = self.retired.borrow_mut();
        if let Some(before) = self.link.replace(Some(Rc::clone(link))) {
            if before.was_set_up() {
                retired.clear();
            }
            let ordinal = self.ids_drawn.get();
            self.ids_drawn.set(ordinal + 1);
            let id = self.instance_id.replace(draw_id(&self.chance.of(ordinal)));
            retired.push((id, now));
        }
        retired.retain(|(_, at)| now.duration_since(*at) < self.expiry);
        for (id, _) in &*retired {
            send(link, &Command::ClearUserSync(id.clone()));
        }
    }

    /// A user's device began to sync, still does, or stopped. If nobody can be told now, the next connection begins
    /// with everything.
    pub fn say(&self, sync: UserSync) {
        if self.is_stopped.get() {
            return;
        }
        if let Some(here) = &self.here {
            here.user_sync(&sync);
        } else if let Some(link) = &*self.link.borrow() {
            send(link, &Command::UserSync(sync));
        }
    }

    /// The last word of this process.
    pub fn stop(&self) {
        if !self.is_stopped.replace(true)
            && let Some(link) = &*self.link.borrow()
        {
            send(link, &Command::ClearUserSync(self.instance_id()));
        }
    }
}

fn send(link: &Link, command: &Command) {
    let sent = link.send(command);
    debug_assert!(sent.is_ok(), "what a line cannot carry is not announced: {sent:?}");
}

fn draw_id(chance: &Chance) -> String {
    let mut rng = chance.rng();
    let letter = |n: u8| char::from(if n < 26 { b'a' + n } else { b'A' + n - 26 });
    let letters = (0..INSTANCE_ID_LETTERS).map(|_| letter(rng.random_range(0..52)));
    SIGNS_OF_LIFE.chars().chain(letters).collect()
}
