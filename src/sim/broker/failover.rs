//! Moves the broker's name to another server, while the old one lives on.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use serde::{Deserialize, Serialize};

use super::Options;
use super::state::State;

/// The connections that break in a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostConnections {
    /// Those on which instances publish. The subscriptions stay on the old server.
    Publishing,
    /// The subscriptions. Instances publish on the old server.
    Subscribing,
}

/// The server behind the broker's name, to which new connections are made.
pub(super) struct Present {
    state: RefCell<Rc<State>>,
}

impl Present {
    /// Returns the first server of a process.
    pub(super) fn new(options: Options) -> Self {
        Present { state: RefCell::new(Rc::new(State::new(options))) }
    }

    /// Returns the state of the server.
    pub(super) fn state(&self) -> Rc<State> {
        Rc::clone(&self.state.borrow())
    }
}

/// Moves the name of the broker that runs at the time, if one does.
#[derive(Default)]
pub struct Failover {
    present: RefCell<Weak<Present>>,
}

impl std::fmt::Debug for Failover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failover").finish_non_exhaustive()
    }
}

impl Failover {
    /// Records the process that has just begun.
    pub(super) fn began(&self, present: &Rc<Present>) {
        *self.present.borrow_mut() = Rc::downgrade(present);
    }

    /// Puts another server in the place of the present one, and breaks the connections `lost` to the old one. Returns
    /// true if there were any.
    pub fn fail_over(&self, lost: LostConnections) -> bool {
        let Some(present) = self.present.borrow().upgrade() else { return false };
        let other = Rc::new(State::new(present.state().options().clone()));
        let old = present.state.replace(other);
        old.drop_clients(|client| client.is_subscribed() == (lost == LostConnections::Subscribing)) > 0
    }
}
