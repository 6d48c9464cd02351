//! Serving syncs: waiting, and knowing what to read.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::notifier::Notifier;
use super::read::{self, Range};
use super::token::SyncToken;
use super::typing::Typing;
use super::{News, SyncError, SyncResponse};
use crate::env::Env;
use crate::store::{Database, IdGenerator, InstanceMap};
use crate::streams::typing::TypingHandler;
use crate::streams::{account_data, events, presence, receipts, to_device};

/// How long a client whose token is ahead of this instance waits for it to catch up.
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
    /// Serves syncs from `database`, up to the positions that `ids` know. `notifier` has to be told whenever one of them
    /// may have moved.
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
        let of = |stream: &str| {
            let ids = ids.iter().find(|ids| ids.stream().as_str() == stream);
            Rc::clone(ids.expect("every stream in the database has its ids"))
        };
        SyncHandler {
            database,
            instances,
            events: of(events::NAME),
            receipts: of(receipts::NAME),
            account_data: of(account_data::NAME),
            to_device: of(to_device::NAME),
            presence: of(presence::NAME),
            typing: Typing::new(typing, env.chance.of("typing stretch")),
            notifier,
            env,
        }
    }

    /// What is new for a device of a user since the token of its last answer. If there is nothing, waits until there is,
    /// for `timeout` at most; the answer is then empty.
    ///
    /// Whoever brings a token says that everything up to it has arrived: the messages to the device up to there are
    /// forgotten. Without one, an answer has no history, only the messages that wait for the device.
    ///
    /// # Errors
    /// The token cannot be understood, or the database failed.
    pub async fn sync(
        &self,
        user_id: &str,
        device_id: &str,
        since: Option<&str>,
        timeout: Duration,
    ) -> Result<SyncResponse, SyncError> {
        let deadline = Instant::now() + timeout;
        let Some(since) = since else {
            let (now, typing) = (self.now(), self.typing.news(Default::default()));
            let range = Range::first(&now);
            let news = read::read(&self.database, user_id, device_id, range).await?;
            return Ok(self.respond(&now, News { typing, ..news }));
        };
        let mut from = self.reach(SyncToken::parse(since, &self.instances)?).await?;
        let mut acknowledged = Some(from.to_device);
        loop {
            let moved = self.notifier.news();
            // All positions at one instant, and what is in memory at the same; the database only afterwards.
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
            // Out of time or not, the next look decides.
            let _ = timeout_at(deadline, moved).await;
        }
    }

    /// Where the client stands, once this instance is there too or [`SINCE_WAIT_MAX`] is over.
    ///
    /// After that the client is served all the same: in what is still behind it stays where it is and is told nothing,
    /// and it misses no news of the rest. An empty answer instead, as Synapse gives, would let the one stream or writer
    /// that is broken keep all the others from every client that was ever served by somebody who is further.
    ///
    /// A token may be ahead of everything there is: after the database was restored from a backup, or failed over to a
    /// replica that had not everything. Nothing will ever come that reaches it for sure, so the client is served from
    /// the last id there is instead (Synapse #17386). An error would say as much, and lock the client out until its user
    /// logs in again; and there is nothing that it misses.
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

    /// The token, but in no stream past the last id that was given out.
    async fn bounded(&self, since: SyncToken) -> Result<SyncToken, SyncError> {
        let sequences = [events::SOURCE, receipts::SOURCE, account_data::SOURCE, to_device::SOURCE, presence::SOURCE];
        let last = read::last_allocated(&self.database, sequences.map(|source| source.sequence)).await?;
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

    /// Where this instance stands. Nothing at or below it can still commit.
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
