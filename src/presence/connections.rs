//! Connects an instance's connections with its record of syncing users.

use std::rc::Rc;

use super::{PresenceHandler, UserSyncs};
use crate::replication::{Connection, UserSyncing};
use squall_protocol::{InstanceName, UserSync};

/// Forwards connections and commands to the instance's own syncs and to the presence of all users.
pub struct PresenceConnections {
    writer: InstanceName,
    syncs: Rc<UserSyncs>,
    handler: Rc<PresenceHandler>,
}

impl PresenceConnections {
    /// Returns the connections of an instance in a deployment where `writer` is the presence writer.
    pub fn new(writer: InstanceName, syncs: Rc<UserSyncs>, handler: Rc<PresenceHandler>) -> Self {
        PresenceConnections { writer, syncs, handler }
    }
}

impl UserSyncing for PresenceConnections {
    fn connected(&self, target: &InstanceName, connection: &Rc<Connection>) {
        if *target == self.writer {
            self.syncs.connected(connection);
        }
    }

    fn publishing(&self, connection: &Rc<Connection>) {
        if !self.handler.is_writer() {
            self.syncs.connected(connection);
        }
    }

    fn replicate_received(&self) {
        self.syncs.announce_again();
    }

    // The handler ignores the command unless this instance is the presence writer.
    fn user_sync(&self, sync: &UserSync) {
        self.handler.user_sync(sync);
    }

    fn clear_user_sync(&self, instance_id: &str) {
        self.handler.clear_user_sync(instance_id);
    }
}
