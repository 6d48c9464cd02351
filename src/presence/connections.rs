//! What the connections of an instance have to do with who is syncing.

use std::rc::Rc;

use super::{PresenceHandler, UserSyncs};
use crate::protocol::{InstanceName, UserSync};
use crate::replication::{Link, UserSyncing};

/// Brings together the connections, the syncs of this instance, and everybody's presence.
pub struct PresenceConnections {
    writer: InstanceName,
    syncs: Rc<UserSyncs>,
    handler: Rc<PresenceHandler>,
}

impl PresenceConnections {
    /// For an instance of a deployment in which `writer` writes the presence stream.
    pub fn new(writer: InstanceName, syncs: Rc<UserSyncs>, handler: Rc<PresenceHandler>) -> Self {
        PresenceConnections { writer, syncs, handler }
    }
}

impl UserSyncing for PresenceConnections {
    fn connected(&self, target: &InstanceName, link: &Rc<Link>) {
        if *target == self.writer {
            self.syncs.connected(link);
        }
    }

    fn publishing(&self, link: &Rc<Link>) {
        if !self.handler.is_writer() {
            self.syncs.connected(link);
        }
    }

    fn asked(&self) {
        self.syncs.say_again();
    }

    // A peer that mistakes this instance for the presence writer speaks to nobody: the handler knows what it is.
    fn user_sync(&self, sync: &UserSync) {
        self.handler.user_sync(sync);
    }

    fn clear_user_sync(&self, instance_id: &str) {
        self.handler.clear_user_sync(instance_id);
    }
}
