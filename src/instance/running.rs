//! A running instance: access to its parts, and its orderly stop.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::presence::Presence;
use super::{Config, EventsWriter, PersistError, StreamWriter};
use crate::caches::Caches;
use crate::observer::Env;
use crate::presence::{PresenceHandler, UserSyncs};
use crate::replication::{CommandHandler, Waiters};
use crate::store::AllocateError;
use crate::streams::typing::TypingHandler;
use crate::sync::{Notifier, SyncError, SyncHandler, SyncResponse};
use crate::transport::http::{HttpClient, StreamPositions};
use squall_protocol::{InstanceName, MASTER, rows};

/// Time that a stopping instance gives its writes to end and its connections to send what is queued.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Time within [`STOP_GRACE`] for which an instance that stops waits for the database to return its last rows.
const ROWS_GRACE: Duration = Duration::from_secs(3);

/// One running instance.
pub struct Instance {
    pub(super) name: InstanceName,
    pub(super) config: Rc<Config>,
    pub(super) env: Env,
    pub(super) handler: Rc<CommandHandler>,
    /// The writers of the streams that this instance writes, by the stream's name.
    pub(super) writers: BTreeMap<&'static str, Rc<StreamWriter>>,
    pub(super) events: Option<Rc<EventsWriter>>,
    pub(super) caches: Rc<Caches>,
    pub(super) typing: Rc<TypingHandler>,
    pub(super) presence: Presence,
    pub(super) sync: SyncHandler,
    pub(super) notifier: Rc<Notifier>,
    pub(super) waiters: Rc<Waiters>,
    pub(super) positions: Rc<StreamPositions>,
    pub(super) client: HttpClient,
}

impl Instance {
    /// Returns the instance's name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Returns true if the instance is the master.
    pub fn is_master(&self) -> bool {
        self.name.as_str() == MASTER
    }

    /// Returns the writer of `stream`.
    ///
    /// # Errors
    /// This instance does not write `stream`.
    pub fn writer(&self, stream: &'static str) -> Result<&Rc<StreamWriter>, PersistError> {
        self.writers.get(stream).ok_or_else(|| {
            PersistError::Allocate(AllocateError::NotAWriter { instance: self.name.clone(), stream: stream.into() })
        })
    }

    /// Returns the writer of events, for the rooms that are assigned to this instance.
    ///
    /// # Errors
    /// This instance does not write events.
    pub fn events(&self) -> Result<&Rc<EventsWriter>, PersistError> {
        self.writer(rows::events::NAME)?;
        Ok(self.events.as_ref().expect("an instance that writes events writes caches too"))
    }

    /// Returns the reason why writes are refused, if the last write of a stream found that the database is not that of the
    /// deployment.
    pub fn refusal_to_write(&self) -> Option<String> {
        self.writers.values().find_map(|writer| writer.refusal())
    }

    /// Returns the caches of values from the database.
    pub fn caches(&self) -> &Rc<Caches> {
        &self.caches
    }

    /// Returns the record of typing users.
    pub fn typing(&self) -> &Rc<TypingHandler> {
        &self.typing
    }

    /// Returns the presence of all users.
    pub fn presence(&self) -> &Rc<PresenceHandler> {
        &self.presence.handler
    }

    /// Returns the users who are syncing on this instance.
    pub fn user_syncs(&self) -> &Rc<UserSyncs> {
        &self.presence.syncs
    }

    /// Answers a device's `/sync` request with everything new since the token `since`; see [`SyncHandler::sync`]. The
    /// user counts as syncing until the answer is there.
    ///
    /// # Errors
    /// The token cannot be parsed, or the database failed.
    pub async fn sync(
        &self,
        user_id: &str,
        device_id: &str,
        since: Option<&str>,
        timeout: Duration,
    ) -> Result<SyncResponse, SyncError> {
        let _syncing = self.presence.syncs.begin(user_id, Some(device_id));
        self.sync.sync(user_id, device_id, since, timeout).await
    }

    /// Returns the handler of syncs. It leaves the user's presence as it is.
    pub fn sync_handler(&self) -> &SyncHandler {
        &self.sync
    }

    /// Returns the deployment's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the client that asks other instances to write what this one does not. After a call, reads on this
    /// instance see what the other one wrote.
    pub fn client(&self) -> &HttpClient {
        &self.client
    }

    /// Returns the callers that wait until this instance has seen another one's writes.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Returns the handler of the commands on all connections.
    pub fn handler(&self) -> &Rc<CommandHandler> {
        &self.handler
    }

    /// Returns the environment that the instance runs in.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Ends what is under way, sends what is queued and closes all connections, within [`STOP_GRACE`]. Afterwards the
    /// process may end.
    pub async fn stop(&self) {
        self.env.tasks.stop();
        for connection in self.handler.connections() {
            connection.begin_finishing();
        }
        // Before the rest, so that the last CLEAR_USER_SYNC is sent however long that takes. Synapse never sends it:
        // its sockets close while the command is still queued.
        self.presence.syncs.stop();
        // Wakes the waiting syncs. They are answered without news, and their clients retry on another instance.
        self.notifier.notify();
        // A peer that does not read in time finds its connection closed.
        let _ = tokio::time::timeout(STOP_GRACE, self.finish()).await;
    }

    /// Waits for the writes under way and sends their rows, then closes all connections and waits until they are gone.
    async fn finish(&self) {
        self.presence.handler.idle().await;
        for writer in self.writers.values() {
            writer.idle().await;
        }
        // Otherwise followers would not see the last rows before this instance starts again.
        let _ = tokio::time::timeout(ROWS_GRACE, self.handler.written_is_sent()).await;
        for connection in self.handler.connections() {
            connection.close();
        }
        while !self.handler.connections().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
