//! The handler of syncs: waiting for new rows, and choosing the ranges to read.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::notifier::Notifier;
use super::read::{self, Range};
use super::response::{News, SyncError, SyncResponse};
use super::typing::Typing;
use crate::observer::Env;
use crate::store::{self, Database, IdGenerator, account_data, events, presence, receipts, to_device};
use crate::streams::typing::TypingHandler;
use squall_protocol::{InstanceMap, SyncToken};

/// Time for which a client whose token is ahead of this instance waits for it to catch up.
pub const SINCE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Serves the syncs of one instance.
pub struct SyncHandler {
    database: Database,
    instances: InstanceMap,
    events: Rc<IdGenerator>,
    receipts: Rc<IdGenerator>,
    account_data: Rc<IdGenerator>,
    to_device: Rc<IdGenerator>,
    presence: Rc<IdGenerator>,
    typing: Typing,
    notifier: Rc<Notifier>,
    env: Env,
}

impl SyncHandler {
    /// Creates a handler that reads `database` up to the positions of `ids`. The caller must notify `notifier` whenever one
    /// of them may have moved.
    ///
    /// # Panics
    /// If a stream is missing among `ids`.
    pub fn new(
        database: Database,
        instances: InstanceMap,
        ids: &[Rc<IdGenerator>],
        typing: Rc<TypingHandler>,
        notifier: Rc<Notifier>,
        env: Env,
    ) -> Self {
        let find = |stream: &str| {
            let ids = ids.iter().find(|ids| ids.stream().as_str() == stream);
            Rc::clone(ids.expect("every stream in the database has its ids"))
        };
        SyncHandler {
            database,
            instances,
            events: find(events::SOURCE.name),
            receipts: find(receipts::SOURCE.name),
            account_data: find(account_data::SOURCE.name),
            to_device: find(to_device::SOURCE.name),
            presence: find(presence::SOURCE.name),
            typing: Typing::new(typing, env.seeds.child("typing stretch")),
            notifier,
            env,
        }
    }

    /// Returns the new rows for a device of a user since the token of its last answer. If there are none, waits for them for
    /// at most `timeout`; the answer is then empty.
    ///
    /// A client that sends a token acknowledges everything up to it, and the messages to the device up to there are deleted.
    /// Without a token, the answer has no history, only the waiting messages of the device.
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
        let deadline = Instant::now() + timeout;
        let Some(since) = since else {
            let now = self.now();
            let typing = self.typing.news(Default::default());
            let range = Range::first(&now);
            let news = read::read(&self.database, user_id, device_id, range).await?;
            return Ok(self.respond(&now, News { typing, ..news }));
        };
        let mut from = self.reach(SyncToken::parse(since, &self.instances)?).await?;
        let mut acknowledged = Some(from.to_device);
        loop {
            let moved = self.notifier.news();
            // All positions and the typing users at one instant; the database only afterwards.
            let now = self.now();
            let typing = self.typing.news(from.typing);
            let next = from.merge(&now);
            let range = Range::between(&from, &next, acknowledged.take());
            let mut news = match range.is_empty() {
                true => News::default(),
                false => read::read(&self.database, user_id, device_id, range).await?,
            };
            news.typing = typing;
            from = next;
            if !news.is_empty() || Instant::now() >= deadline || self.env.tasks.is_stopped() {
                return Ok(self.respond(&from, news));
            }
            // Timed out or not, the next iteration decides.
            let _ = timeout_at(deadline, moved).await;
        }
    }

    /// Waits until this instance has reached the client's position or [`SINCE_WAIT_MAX`] is over, and returns the position to
    /// serve the client from.
    ///
    /// After the time-out the client is served all the same. In the streams that are still behind, its position stays and it
    /// receives nothing; it receives the new rows of the others. An empty answer instead, as from Synapse, would let one
    /// broken stream or writer withhold all the others from every client that was ever served by an instance that is further.
    ///
    /// A token may be ahead of all committed rows: after the database was restored from a backup, or failed over to a replica
    /// that lacked some of them. No row is certain ever to reach it, so the client is served from the last allocated id
    /// instead (Synapse #17386), and misses nothing. An error would lock the client out until its user logs in again.
    async fn reach(&self, since: SyncToken) -> Result<SyncToken, SyncError> {
        if since.is_within(&self.now()) {
            return Ok(since);
        }
        let since = self.bounded(since).await?;
        let deadline = Instant::now() + SINCE_WAIT_MAX;
        loop {
            let moved = self.notifier.news();
            if since.is_within(&self.now()) || Instant::now() >= deadline || self.env.tasks.is_stopped() {
                return Ok(since);
            }
            let _ = timeout_at(deadline, moved).await;
        }
    }

    /// Returns the token, bounded in each stream by the last allocated id.
    async fn bounded(&self, since: SyncToken) -> Result<SyncToken, SyncError> {
        let sequences = [events::SOURCE, receipts::SOURCE, account_data::SOURCE, to_device::SOURCE, presence::SOURCE];
        let last = store::last_allocated(&self.database, sequences.map(|source| source.sequence)).await?;
        let [events, receipts, account_data, to_device, presence] = last;
        Ok(SyncToken {
            events: since.events.bounded(events),
            receipts: since.receipts.bounded(receipts),
            account_data: since.account_data.min(account_data),
            to_device: since.to_device.min(to_device),
            presence: since.presence.min(presence),
            ..since
        })
    }

    /// Returns the positions of this instance. No row at or below them can still commit.
    fn now(&self) -> SyncToken {
        SyncToken {
            events: self.events.vector(),
            receipts: self.receipts.vector(),
            account_data: self.account_data.current_token(),
            to_device: self.to_device.current_token(),
            presence: self.presence.current_token(),
            typing: self.typing.now(),
            others: Default::default(),
        }
    }

    fn respond(&self, next: &SyncToken, news: News) -> SyncResponse {
        SyncResponse { next_batch: next.render(&self.instances), news }
    }
}

#[cfg(test)]
mod tests;
