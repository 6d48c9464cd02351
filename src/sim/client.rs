//! A client of one instance: it reads and writes through it, and bears witness of what it was told.

use std::rc::Rc;
use std::time::Duration;

use super::recorder::Witness;
use crate::caches::{Cached, LoadError};
use crate::instance::Instance;
use crate::judge::Device;
use crate::protocol::Token;

/// A client of one boot of one instance.
pub struct Client {
    instance: Rc<Instance>,
    witness: Witness,
}

impl Client {
    /// A client of `instance`, of whose boot `witness` speaks.
    pub fn new(instance: Rc<Instance>, witness: Witness) -> Self {
        Client { instance, witness }
    }

    /// The instance it talks to.
    pub fn instance(&self) -> &Rc<Instance> {
        &self.instance
    }

    /// It was told that what it wrote is done: each of `what` was changed under `token`, by the instance itself.
    pub fn answered(&self, what: impl IntoIterator<Item = Cached>, token: Token) {
        what.into_iter().for_each(|what| self.witness.answered(what, self.instance.name(), token));
    }

    /// Reads `what`, unless that fails.
    pub async fn read(&self, what: Cached) {
        let read = self.witness.asked(what.clone());
        if let Ok(version) = self.version(&what).await {
            self.witness.told(read, version);
        }
    }

    /// Keeps a sync open. A client that loses its process begins another sync somewhere else, if its plan says so.
    pub async fn sync(&self, device: Device, for_ms: u64) {
        let _told = ToldSync::begin(&self.witness, &device);
        let _syncing = self.instance.user_syncs().begin(&device.user, device.device.as_deref());
        tokio::time::sleep(Duration::from_millis(for_ms)).await;
    }

    async fn version(&self, what: &Cached) -> Result<Option<Token>, LoadError> {
        let caches = self.instance.caches();
        Ok(match what {
            Cached::State { room_id } => caches.current_state(room_id).await?.version,
            Cached::Event { event_id } => caches.event(event_id).await?.version,
            Cached::Receipts { room_id } => caches.receipts(room_id).await?.version,
            Cached::AccountData { user_id } => caches.account_data(user_id).await?.version,
            Cached::RoomAccountData { user_id, room_id } => caches.room_account_data(user_id, room_id).await?.version,
        })
    }
}

/// Tells of a sync's end however it ends: a request may be dropped. Must be dropped after what makes the instance know of
/// the sync.
struct ToldSync<'a> {
    witness: &'a Witness,
    device: &'a Device,
}

impl<'a> ToldSync<'a> {
    fn begin(witness: &'a Witness, device: &'a Device) -> Self {
        witness.sync_began(device);
        ToldSync { witness, device }
    }
}

impl Drop for ToldSync<'_> {
    fn drop(&mut self) {
        self.witness.sync_ended(self.device);
    }
}
