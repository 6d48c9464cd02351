//! The presence of all users on one instance.
//!
//! On the presence writer each device has a state of its own, and a user has the highest one. States change by clients'
//! requests, by announcements of syncing users, and over time. One task persists the changes that followers must see, one
//! write after the other, so two changes of one user are never written out of order. Of several changes during a write only
//! the last is written, which is all that the stream guarantees. On every other instance presence changes by the rows of
//! the stream.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::config::{Limits, STOP_DELAY, SWEEP_INTERVAL};
use super::deadlines::Deadlines;
use super::devices::Devices;
use super::processes::{Change, Processes, SYNCING_MAX};
use super::states::States;
use super::{PresenceConfig, PresenceState, UserPresence, timers};
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::replication::Backoff;
use crate::streams::{CacheView, UpdateError};
use crate::tasks;
use squall_env::LocalBoxFuture;
use squall_protocol::rows::Row;
use squall_protocol::{StreamName, Token, UserSync};

/// Interval between checks for processes that have been silent for too long.
pub const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Longest time for which the end of a sync is not announced. An older end is due to a clock that is behind, or to a line
/// that was held up.
const END_MS_MAX: i64 = (STOP_DELAY.as_millis() + SWEEP_INTERVAL.as_millis()) as i64;

/// Writes changes of presence to the database, as rows of the `presence` stream.
pub trait PersistPresence {
    /// Writes a row for each state, and returns the last token.
    fn persist(&self, states: Vec<UserPresence>) -> LocalBoxFuture<'static, Result<Token, UpdateError>>;
    /// Returns the position of the stream.
    fn position(&self) -> Token;
}

/// The reason for which a user's presence was not changed.
#[derive(Debug, Error)]
pub enum PresenceError {
    /// Another instance writes the presence stream.
    #[error("this instance does not write the presence stream: send the request to the one that does")]
    NotTheWriter,
    /// The instance ended before the change was persisted.
    #[error("the instance ended before the change was known to be persisted")]
    Ended,
}

/// A request to change the presence of a user's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetState {
    /// The device; none if it is unknown.
    pub device_id: Option<String>,
    /// The new state of the device.
    pub state: PresenceState,
    /// The new status message. Ignored if `is_sync`.
    pub status_msg: Option<String>,
    /// True if the change comes with a sync, which leaves the status message as it is, and a busy device busy.
    pub is_sync: bool,
    /// True if a row is to be written even if nothing changes.
    pub force_notify: bool,
}

/// The presence of all users.
pub struct PresenceHandler {
    states: RefCell<States>,
    /// None on followers.
    writer: Option<Writer>,
    env: Env,
}

/// The parts that only the presence writer has.
struct Writer {
    source: Rc<dyn PersistPresence>,
    limits: Limits,
    /// The start of this handler, from which the times in `users` and `deadlines` count.
    began: Instant,
    processes: RefCell<Processes>,
    /// The users with devices that are not offline.
    users: RefCell<BTreeMap<String, User>>,
    deadlines: RefCell<Deadlines>,
    deadline_changed: Notify,
    unsaved: RefCell<Unsaved>,
    changed: Notify,
    saved: Notify,
}

/// A user with devices that are not offline. Times are milliseconds since the start of the handler.
struct User {
    devices: Devices,
    /// The time of the last activity.
    active_at: i64,
}

impl Writer {
    /// Returns the milliseconds since the start of the handler. The wall clock may jump, and must not take users offline.
    fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Returns true if as many users are remembered as may be, and this would be one more.
    fn has_no_room_for(&self, user_id: &str) -> bool {
        let (users, unsaved) = (self.users.borrow(), self.unsaved.borrow());
        users.len().max(unsaved.users.len()) >= SYNCING_MAX && !users.contains_key(user_id)
    }
}

/// Changes that are not yet in the database.
#[derive(Default)]
struct Unsaved {
    users: BTreeSet<String>,
    waiting: Vec<oneshot::Sender<Token>>,
    /// The users whose states are being written.
    saving: Rc<BTreeSet<String>>,
    waiting_for_saving: Vec<oneshot::Sender<Token>>,
}

impl PresenceHandler {
    /// Returns the presence on a follower, from the states in the database.
    pub fn on_follower(states: Vec<(Token, UserPresence)>, env: Env) -> Rc<Self> {
        Rc::new(Self::new(states, None, env))
    }

    /// Returns the presence on the presence writer, from the states in the database, and spawns its tasks.
    ///
    /// No process has announced its syncing users yet. A user who was not offline when the writer's last process ended
    /// keeps that state for [`timers::SYNC_ONLINE_TIMEOUT_MS`], and longer if busy or if announced again until then.
    pub fn on_writer(
        mut states: Vec<(Token, UserPresence)>,
        source: Rc<dyn PersistPresence>,
        config: &PresenceConfig,
        env: Env,
    ) -> Rc<Self> {
        let now_ms = now_ms(&env);
        let limits = config.limits();
        let mut users = BTreeMap::new();
        for (_, presence) in states.iter_mut().filter(|(_, presence)| !presence.is_offline()) {
            presence.last_user_sync_ms = now_ms;
            let active_at = presence.last_active_ms.saturating_sub(now_ms).min(0);
            let devices = Devices::after_restart(presence.state, active_at, 0, &limits);
            users.insert(presence.user_id.clone(), User { devices, active_at });
        }
        let user_ids: Vec<String> = users.keys().cloned().collect();
        let writer = Writer {
            source,
            limits,
            began: Instant::now(),
            processes: RefCell::new(Processes::new(config.process_expiry())),
            users: RefCell::new(users),
            deadlines: RefCell::default(),
            deadline_changed: Notify::new(),
            unsaved: RefCell::default(),
            changed: Notify::new(),
            saved: Notify::new(),
        };
        let handler = Rc::new(Self::new(states, Some(writer), env.clone()));
        for user_id in &user_ids {
            handler.update(user_id);
        }
        env.tasks.spawn(tasks::PERSIST_PRESENCE, Rc::clone(&handler).persist_changes());
        env.tasks.spawn(tasks::PRESENCE_TIMEOUTS, Rc::clone(&handler).run_timers());
        env.tasks.spawn(tasks::EXPIRE_PROCESSES, Rc::clone(&handler).expire_processes());
        handler
    }

    fn new(states: Vec<(Token, UserPresence)>, writer: Option<Writer>, env: Env) -> Self {
        PresenceHandler { states: RefCell::new(States::of(states)), writer, env }
    }

    /// Returns the user's presence, as far as this instance knows it.
    pub fn presence_of(&self, user_id: &str) -> UserPresence {
        let states = self.states.borrow();
        states.get(user_id).map_or_else(|| UserPresence::unknown(user_id), |(_, presence)| presence.clone())
    }

    /// Returns true if this instance is the presence writer.
    pub fn is_writer(&self) -> bool {
        self.writer.is_some()
    }

    /// Returns true if a change is not yet in the database.
    fn is_unsaved(writer: &Writer) -> bool {
        let unsaved = writer.unsaved.borrow();
        !unsaved.saving.is_empty() || !unsaved.users.is_empty()
    }

    /// Changes the presence of a user's device as a client requested. Returns the token of the row, or the position of the
    /// stream if there was nothing to write.
    pub async fn set_state(&self, user_id: &str, request: SetState) -> Result<Token, PresenceError> {
        let now_ms = now_ms(&self.env);
        let change = |presence: &mut UserPresence, user: &mut User, now: i64| {
            user.devices.set(&request.device_id, request.state, request.is_sync, now);
            if matches!(request.state, PresenceState::Online | PresenceState::Busy) {
                presence.last_active_ms = now_ms;
                user.active_at = now;
            }
            // The request counts as a sync, so the user goes offline no sooner than other users.
            if request.is_sync || request.state != PresenceState::Offline {
                presence.last_user_sync_ms = now_ms;
            }
            if !request.is_sync {
                presence.status_msg = request.status_msg.filter(|_| request.state != PresenceState::Offline);
            }
        };
        self.change_and_wait(user_id, change, request.force_notify).await
    }

    /// Notes an activity of a user's device, which ends its idleness. An offline device stays offline. Returns the same as
    /// [`set_state`](Self::set_state).
    pub async fn bump_active(&self, user_id: &str, device_id: Option<String>) -> Result<Token, PresenceError> {
        let now_ms = now_ms(&self.env);
        let change = |presence: &mut UserPresence, user: &mut User, now: i64| {
            user.devices.bump(&device_id, now);
            presence.last_active_ms = now_ms;
            user.active_at = now;
        };
        self.change_and_wait(user_id, change, false).await
    }

    async fn change_and_wait(
        &self,
        user_id: &str,
        change: impl FnOnce(&mut UserPresence, &mut User, i64),
        force: bool,
    ) -> Result<Token, PresenceError> {
        let writer = self.writer.as_ref().ok_or(PresenceError::NotTheWriter)?;
        self.change(writer, user_id, change, force);
        let (saved, token) = oneshot::channel();
        {
            // The state may also be that of an earlier change, which is not in the database yet.
            let mut unsaved = writer.unsaved.borrow_mut();
            if unsaved.users.contains(user_id) {
                unsaved.waiting.push(saved);
            } else if unsaved.saving.contains(user_id) {
                unsaved.waiting_for_saving.push(saved);
            } else {
                return Ok(writer.source.position());
            }
        }
        token.await.map_err(|_| PresenceError::Ended)
    }

    /// Handles a process's announcement of a syncing user. Ignored on followers, to which only a faulty peer sends it.
    pub fn user_sync(&self, sync: &UserSync) {
        let Some(writer) = &self.writer else { return };
        let announced = match writer.has_no_room_for(&sync.user_id) {
            true => Change::TooMany,
            false => writer.processes.borrow_mut().user_sync(Instant::now(), sync),
        };
        match announced {
            Change::Began | Change::Repeated | Change::Ended => {}
            Change::Void => return,
            Change::TooMany => {
                self.env.observer.event(InstanceEvent::AnnouncementIgnored { process: &sync.instance_id });
                return;
            }
        }
        // The peer's clock may be ahead of this one, which must not keep the user online, or behind.
        let now_ms = now_ms(&self.env);
        let last_sync_ms = sync.last_sync_ms.min(now_ms);
        let ms_ago = now_ms.saturating_sub(last_sync_ms).min(END_MS_MAX);
        let change = |presence: &mut UserPresence, user: &mut User, now: i64| {
            presence.last_user_sync_ms = presence.last_user_sync_ms.max(last_sync_ms);
            user.devices.synced(&sync.device_id, now - ms_ago);
            if announced == Change::Began && user.devices.began(&sync.device_id, now) {
                presence.last_active_ms = now_ms;
                user.active_at = now;
            }
        };
        self.change(writer, &sync.user_id, change, false);
    }

    /// Handles a process's announcement that it serves no syncs any more.
    pub fn clear_user_sync(&self, instance_id: &str) {
        let Some(writer) = &self.writer else { return };
        let now_ms = now_ms(&self.env);
        let served = writer.processes.borrow_mut().clear(Instant::now(), instance_id);
        for (user_id, device_id) in served {
            let change = |presence: &mut UserPresence, user: &mut User, now: i64| {
                presence.last_user_sync_ms = now_ms;
                user.devices.synced(&device_id, now);
            };
            self.change(writer, &user_id, change, false);
        }
    }

    /// Returns true if a process has announced that the user is syncing.
    pub fn is_syncing(&self, user_id: &str) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.processes.borrow().is_syncing(user_id))
    }

    /// Updates a user's presence after time has passed or after the user stopped syncing.
    fn update(&self, user_id: &str) {
        if let Some(writer) = &self.writer {
            self.change(writer, user_id, |_, _, _| {}, false);
        }
    }

    /// Applies `change`, which gets the present time too, and the changes due by now. A row is written if watchers must see
    /// the change, or by `force`.
    fn change(
        &self,
        writer: &Writer,
        user_id: &str,
        change: impl FnOnce(&mut UserPresence, &mut User, i64),
        force: bool,
    ) {
        let old = self.presence_of(user_id);
        let mut new = old.clone();
        let now = writer.now();
        let next = {
            let mut users = writer.users.borrow_mut();
            let unknown = || User { devices: Devices::default(), active_at: i64::MIN / 2 };
            let user = users.entry(user_id.to_owned()).or_insert_with(unknown);
            change(&mut new, user, now);
            let processes = writer.processes.borrow();
            let is_syncing = |device_id: &Option<String>| processes.is_device_syncing(user_id, device_id);
            let (state, device_changes_at) = user.devices.advance(now, is_syncing, &writer.limits);
            let inactive_in = timers::settle(&mut new, state, now - user.active_at);
            if user.devices.is_empty() {
                users.remove(user_id);
            }
            inactive_in.map(|ms| now + ms).into_iter().chain(device_changes_at).min()
        };
        if force || timers::should_notify(&old, &new) {
            writer.unsaved.borrow_mut().users.insert(user_id.to_owned());
            writer.changed.notify_one();
        }
        self.states.borrow_mut().insert(Token(0), new);
        writer.deadlines.borrow_mut().set(user_id, next);
        writer.deadline_changed.notify_one();
    }

    /// Writes changes to the database as they occur, for ever.
    async fn persist_changes(self: Rc<Self>) {
        let Some(writer) = &self.writer else { return };
        let mut backoff = Backoff::new(&self.env.seeds.child("persist_presence"));
        let stream = StreamName::from("presence");
        loop {
            let (users, waiting) = {
                let mut unsaved = writer.unsaved.borrow_mut();
                unsaved.saving = Rc::new(std::mem::take(&mut unsaved.users));
                (Rc::clone(&unsaved.saving), std::mem::take(&mut unsaved.waiting))
            };
            // A failed write is retried with the states of these users.
            self.states.borrow_mut().forget_offline(|user_id| users.contains(user_id));
            if users.is_empty() {
                writer.saved.notify_waiters();
                writer.changed.notified().await;
                continue;
            }
            // A failed write is retried with the states of that time.
            let token = loop {
                let states = users.iter().map(|user_id| self.presence_of(user_id)).collect();
                match writer.source.persist(states).await {
                    Ok(token) => break token,
                    Err(error) => {
                        self.env.observer.event(InstanceEvent::Streaming { stream: &stream, error: &*error });
                        tokio::time::sleep(backoff.next_delay()).await;
                    }
                }
            };
            backoff.reset();
            let waiting_for_saving = std::mem::take(&mut writer.unsaved.borrow_mut().waiting_for_saving);
            // An error means that the caller has gone away.
            for waiting in waiting.into_iter().chain(waiting_for_saving) {
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

    /// Updates each user at their deadline, for ever.
    async fn run_timers(self: Rc<Self>) {
        let Some(writer) = &self.writer else { return };
        loop {
            let now_ms = writer.now();
            let first_ms = writer.deadlines.borrow().first_ms();
            match first_ms {
                Some(at_ms) if at_ms <= now_ms => {
                    let due = writer.deadlines.borrow_mut().take_due(now_ms);
                    for user_id in &due {
                        self.update(user_id);
                    }
                }
                Some(at_ms) => {
                    let wait = Duration::from_millis(at_ms.abs_diff(now_ms));
                    let _ = tokio::time::timeout(wait, writer.deadline_changed.notified()).await;
                }
                None => writer.deadline_changed.notified().await,
            }
        }
    }

    /// Removes processes that have been silent for too long, for ever.
    async fn expire_processes(self: Rc<Self>) {
        let Some(writer) = &self.writer else { return };
        loop {
            tokio::time::sleep(EXPIRY_CHECK_INTERVAL).await;
            let served = writer.processes.borrow_mut().expire(Instant::now());
            if !served.is_empty() {
                self.env.observer.process_expired(served.len());
            }
            for (user_id, _) in &served {
                self.update(user_id);
            }
        }
    }
}

impl CacheView for PresenceHandler {
    /// Takes over the state of a newer row. The writer ignores all rows, because it holds the same state or a newer one. A
    /// follower may hold a newer one too, from reading the table at its start.
    fn apply(&self, token: Token, row: &Row) {
        let Row::Presence(row) = row else { return };
        let mut states = self.states.borrow_mut();
        if self.writer.is_none() && states.get(&row.user_id).is_none_or(|(known, _)| *known < token) {
            states.insert(token, row.clone().into());
            states.forget_offline(|_| false);
        }
    }

    /// Does nothing: the states in memory are the writer's own, and a failed write is retried.
    fn invalidate_stream(&self, _stream: &str) {}
}

fn now_ms(env: &Env) -> i64 {
    i64::try_from(env.clock.now_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
