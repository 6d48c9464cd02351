//! The part of an instance that knows who is syncing, as its connections see it.

use std::rc::Rc;

use super::Link;
use crate::protocol::{InstanceName, UserSync};

/// Is told of connections that were made and of what comes on them about syncing users. `USER_SYNC` and
/// `CLEAR_USER_SYNC` go to the presence writer and are never passed on: a client that gets one closes the connection,
/// and comes back for the same (Synapse #7257).
pub trait UserSyncing {
    /// A connection to `target` was made. What is sent now comes before anything that is asked of `target`.
    fn connected(&self, target: &InstanceName, link: &Rc<Link>);
    /// A connection to the broker was made on which everybody can be told.
    fn publishing(&self, link: &Rc<Link>);
    /// Somebody who may have missed who is syncing here wants to be told, by way of the broker.
    fn asked(&self);
    /// A process says that a user began to sync, still does, or stopped.
    fn user_sync(&self, sync: &UserSync);
    /// A process says that it serves nobody any more.
    fn clear_user_sync(&self, instance_id: &str);
}
