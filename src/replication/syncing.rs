//! The interface between an instance's connections and its record of syncing users.

use std::rc::Rc;

use super::Connection;
use squall_protocol::{InstanceName, UserSync};

/// Receives new connections, and the commands on them that concern syncing users.
///
/// `USER_SYNC` and `CLEAR_USER_SYNC` go to the presence writer and are never relayed: a client that receives one
/// closes the connection, reconnects, and receives it again (Synapse #7257).
pub trait UserSyncing {
    /// A connection to `target` was made. Commands sent now precede the `REPLICATE` that asks for `target`'s rows.
    fn connected(&self, target: &InstanceName, connection: &Rc<Connection>);
    /// A connection to the broker was made, on which commands reach every instance.
    fn publishing(&self, connection: &Rc<Connection>);
    /// A `REPLICATE` arrived over the broker. Its sender may have missed earlier announcements of syncing users.
    fn replicate_received(&self);
    /// A process announced that a user began to sync, still does, or stopped.
    fn user_sync(&self, sync: &UserSync);
    /// A process announced that it serves no syncs any more.
    fn clear_user_sync(&self, instance_id: &str);
}
