//! The presence of all users, as one instance has it.
//!
//! On the instance that writes the stream it changes by what clients say, by who is syncing where, and by time. Every
//! change that others must know of is persisted, one after the other, by one task: two changes of one user never
//! overtake each other on their way into the database, and of those that come meanwhile only the last is written, which
//! is all that the stream promises. Everywhere else it changes by the rows of the stream.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::processes::{Heard, Processes};
use super::{PresenceState, UserPresence, timers};
use crate::env::observer::Trouble;
use crate::env::{Env, LocalBoxFuture};
use crate::protocol::{StreamName, Token, UserSync};
use crate::replication::Backoff;
use crate::streams::{Keeper, Row, UpdateError};

/// How often processes are looked for that are gone without a word.
pub const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Makes changes of presence durable: the writer of the `presence` stream.
pub trait PersistPresence {
    /// Writes a row for each state. Returns the last token.
    fn persist(&self, states: Vec<UserPresence>) -> LocalBoxFuture<'static, Result<Token, UpdateError>>;
    /// How far the stream has come.
    fn position(&self) -> Token;
}

/// Why a user's presence was not changed.
#[derive(Debug, Error)]
pub enum PresenceError {
    /// Another instance writes the presence stream.
    #[error("this instance does not write the presence stream: ask the one that does")]
    NotTheWriter,
    /// The instance ended meanwhile.
    #[error("the instance ended before the change was known to be persisted")]
    Ended,
}

/// A request to change a user's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetState {
    /// What it shall be.
    pub state: PresenceState,
    /// What the user says about themselves. Ignored if `is_sync`.
    pub status_msg: Option<String>,
    /// Whether it comes with a sync, which leaves the message as it is.
    pub is_sync: bool,
    /// Whether to write a row even if nothing changes.
    pub force_notify: bool,
}

/// Everybody's presence.
pub struct PresenceHandler {
    /// With the token under which a follower learnt of it.
    states: RefCell<BTreeMap<String, (Token, UserPresence)>>,
    /// None on instances that follow.
    writer: Option<Writer>,
    env: Env,
}

/// What only the writer of the stream has.
struct Writer {
    source: Rc<dyn PersistPresence>,
    processes: RefCell<Processes>,
    deadlines: RefCell<Deadlines>,
    deadline_changed: Notify,
    unsaved: RefCell<Unsaved>,
    changed: Notify,
    saved: Notify,
}

/// Changes that are not yet in the database.
#[derive(Default)]
struct Unsaved {
    users: BTreeSet<String>,
    waiting: Vec<oneshot::Sender<Token>>,
    is_saving: bool,
}

impl PresenceHandler {
    /// On an instance that follows, with what the database holds at its start.
    pub fn on_follower(states: Vec<(Token, UserPresence)>, env: Env) -> Rc<Self> {
        Rc::new(Self::new(states, None, env))
    }

    /// On the instance that writes the stream. Nobody has said yet who is syncing: whoever was not offline when the
    /// last process of the writer ended is given [`timers::SYNC_ONLINE_TIMEOUT_MS`] to be announced again, and is
    /// offline otherwise. A process that is silent for `expiry` is taken for dead.
    pub fn on_writer(
        mut states: Vec<(Token, UserPresence)>,
        source: Rc<dyn PersistPresence>,
        expiry: Duration,
        env: Env,
    ) -> Rc<Self> {
        let now_ms = now_ms(&env);
        for (_, presence) in states.iter_mut().filter(|(_, presence)| !presence.is_offline()) {
            presence.last_user_sync_ms = now_ms;
        }
        let users: Vec<String> = states.iter().map(|(_, presence)| presence.user_id.clone()).collect();
        let writer = Writer {
            source,
            processes: RefCell::new(Processes::new(expiry)),
            deadlines: RefCell::default(),
            deadline_changed: Notify::new(),
            unsaved: RefCell::default(),
            changed: Notify::new(),
            saved: Notify::new(),
        };
        let handler = Rc::new(Self::new(states, Some(writer), env.clone()));
        users.iter().for_each(|user_id| handler.look_again(user_id));
        env.tasks.spawn("persist_presence", Rc::clone(&handler).save_changes());
        env.tasks.spawn("presence_timeouts", Rc::clone(&handler).keep_time());
        env.tasks.spawn("expire_processes", Rc::clone(&handler).expire_processes());
        handler
    }

    fn new(states: Vec<(Token, UserPresence)>, writer: Option<Writer>, env: Env) -> Self {
        let states = states.into_iter().map(|state| (state.1.user_id.clone(), state)).collect();
        PresenceHandler { states: RefCell::new(states), writer, env }
    }

    /// The user's presence, as far as this instance knows.
    pub fn presence_of(&self, user_id: &str) -> UserPresence {
        let states = self.states.borrow();
        states.get(user_id).map_or_else(|| UserPresence::unknown(user_id), |(_, presence)| presence.clone())
    }

    /// Whether this instance writes the stream.
    pub fn is_writer(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether anybody's presence has changed here that is not yet in the database.
    fn is_unsaved(writer: &Writer) -> bool {
        let unsaved = writer.unsaved.borrow();
        unsaved.is_saving || !unsaved.users.is_empty()
    }

    /// Changes a user's presence, as a client of theirs asked. Returns the token under which that was written, or how
    /// far the stream is if there was nothing to write.
    pub async fn set_state(&self, user_id: &str, ask: SetState) -> Result<Token, PresenceError> {
        let now_ms = now_ms(&self.env);
        let change = |presence: &mut UserPresence| {
            presence.state = ask.state;
            if ask.state == PresenceState::Online {
                presence.last_active_ms = now_ms;
            }
            // Whoever asks is there, and not offline before others would be.
            if ask.is_sync || ask.state != PresenceState::Offline {
                presence.last_user_sync_ms = now_ms;
            }
            if !ask.is_sync {
                presence.status_msg = ask.status_msg.filter(|_| ask.state != PresenceState::Offline);
            }
        };
        self.change_and_wait(user_id, change, ask.force_notify).await
    }

    /// A user did something: they are not idle. Whoever is offline stays so. Returns like
    /// [`set_state`](Self::set_state).
    pub async fn bump_active(&self, user_id: &str) -> Result<Token, PresenceError> {
        let now_ms = now_ms(&self.env);
        let change = |presence: &mut UserPresence| {
            presence.last_active_ms = now_ms;
            if presence.state == PresenceState::Unavailable {
                presence.state = PresenceState::Online;
            }
        };
        self.change_and_wait(user_id, change, false).await
    }

    async fn change_and_wait(
        &self,
        user_id: &str,
        change: impl FnOnce(&mut UserPresence),
        force: bool,
    ) -> Result<Token, PresenceError> {
        let writer = self.writer.as_ref().ok_or(PresenceError::NotTheWriter)?;
        if !self.change(writer, user_id, change, force) {
            return Ok(writer.source.position());
        }
        let (saved, token) = oneshot::channel();
        writer.unsaved.borrow_mut().waiting.push(saved);
        token.await.map_err(|_| PresenceError::Ended)
    }

    /// A process says who is syncing through it. Only on the writer; elsewhere it is a mistake of the peer's.
    pub fn user_sync(&self, sync: &UserSync) {
        let Some(writer) = &self.writer else { return };
        let heard = writer.processes.borrow_mut().said(Instant::now(), sync);
        if heard == Heard::Void {
            return;
        }
        // The other clock may be ahead of this one; nobody is online because of that.
        let now_ms = now_ms(&self.env);
        let last_sync_ms = sync.last_sync_ms.min(now_ms);
        let change = |presence: &mut UserPresence| {
            presence.last_user_sync_ms = presence.last_user_sync_ms.max(last_sync_ms);
            if heard == Heard::Began && presence.is_offline() {
                (presence.state, presence.last_active_ms) = (PresenceState::Online, now_ms);
            }
        };
        self.change(writer, &sync.user_id, change, false);
    }

    /// A process says that it serves nobody any more.
    pub fn clear_user_sync(&self, instance_id: &str) {
        let Some(writer) = &self.writer else { return };
        let now_ms = now_ms(&self.env);
        let served = writer.processes.borrow_mut().clear(Instant::now(), instance_id);
        for user_id in served {
            self.change(writer, &user_id, |presence| presence.last_user_sync_ms = now_ms, false);
        }
    }

    /// Whether the writer has heard that the user is syncing.
    pub fn is_syncing(&self, user_id: &str) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.processes.borrow().is_syncing(user_id))
    }

    /// Time has passed, or somebody has stopped syncing.
    fn look_again(&self, user_id: &str) {
        if let Some(writer) = &self.writer {
            self.change(writer, user_id, |_| {}, false);
        }
    }

    /// Applies `change`, and what follows from it and from the time. Tells whether there will be a row of it.
    fn change(&self, writer: &Writer, user_id: &str, change: impl FnOnce(&mut UserPresence), force: bool) -> bool {
        let old = self.presence_of(user_id);
        let mut new = old.clone();
        change(&mut new);
        let is_syncing = writer.processes.borrow().is_syncing(user_id);
        let (new, next) = timers::at(now_ms(&self.env), &new, is_syncing);
        let is_news = force || timers::is_news(&old, &new);
        self.states.borrow_mut().insert(user_id.to_owned(), (Token(0), new));
        writer.deadlines.borrow_mut().set(user_id, next);
        writer.deadline_changed.notify_one();
        if is_news {
            writer.unsaved.borrow_mut().users.insert(user_id.to_owned());
            writer.changed.notify_one();
        }
        is_news
    }

    /// Writes changes as they come, for ever.
    async fn save_changes(self: Rc<Self>) {
        let Some(writer) = &self.writer else { return };
        let mut backoff = Backoff::new(&self.env.chance.of("persist_presence"));
        let stream = StreamName::from("presence");
        loop {
            let (users, waiting) = {
                let mut unsaved = writer.unsaved.borrow_mut();
                let users = std::mem::take(&mut unsaved.users);
                unsaved.is_saving = !users.is_empty();
                (users, std::mem::take(&mut unsaved.waiting))
            };
            if users.is_empty() {
                writer.saved.notify_waiters();
                writer.changed.notified().await;
                continue;
            }
            // If it fails it is tried again, with what the states are by then.
            let token = loop {
                let states = users.iter().map(|user_id| self.presence_of(user_id)).collect();
                match writer.source.persist(states).await {
                    Ok(token) => break token,
                    Err(error) => {
                        self.env.observer.trouble(Trouble::Streaming { stream: &stream, error: &*error });
                        tokio::time::sleep(backoff.next_delay()).await;
                    }
                }
            };
            backoff.reset();
            // A caller that has gone away does not want to know.
            for waiting in waiting {
                let _ = waiting.send(token);
            }
        }
    }

    /// Waits until every change is in the database.
    pub async fn idle(&self) {
        let Some(writer) = &self.writer else { return };
        while Self::is_unsaved(writer) {
            writer.saved.notified().await;
        }
    }

    /// Looks at everybody in their time, for ever.
    async fn keep_time(self: Rc<Self>) {
        let Some(writer) = &self.writer else { return };
        loop {
            let now_ms = now_ms(&self.env);
            let first_ms = writer.deadlines.borrow().first_ms();
            match first_ms {
                Some(at_ms) if at_ms <= now_ms => {
                    let due = writer.deadlines.borrow_mut().take_due(now_ms);
                    due.iter().for_each(|user_id| self.look_again(user_id));
                }
                Some(at_ms) => {
                    let wait = Duration::from_millis(at_ms.abs_diff(now_ms));
                    let _ = tokio::time::timeout(wait, writer.deadline_changed.notified()).await;
                }
                None => writer.deadline_changed.notified().await,
            }
        }
    }

    /// Forgets processes that are gone without a word, for ever.
    async fn expire_processes(self: Rc<Self>) {
        let Some(writer) = &self.writer else { return };
        loop {
            tokio::time::sleep(EXPIRY_CHECK_INTERVAL).await;
            let served = writer.processes.borrow_mut().expire(Instant::now());
            if !served.is_empty() {
                self.env.observer.process_expired(served.len());
            }
            served.iter().for_each(|user_id| self.look_again(user_id));
        }
    }
}

impl Keeper for PresenceHandler {
    /// The writer knows it already, or something newer. A follower may: at its start it has read the table.
    fn take(&self, token: Token, row: &Row) {
        let Row::Presence(row) = row else { return };
        let mut states = self.states.borrow_mut();
        if self.writer.is_none() && states.get(&row.user_id).is_none_or(|(known, _)| *known < token) {
            states.insert(row.user_id.clone(), (token, row.clone().into()));
        }
    }

    /// The writer goes by what it has in memory, and writes again what it does not know to be written.
    fn doubt(&self, _stream: &str) {}
}

fn now_ms(env: &Env) -> i64 {
    i64::try_from(env.clock.now_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
