//! The users who are syncing on this instance.
//!
//! Clients sync again and again, so a user whose last sync has ended is not gone. Only if no other sync follows for
//! [`STOP_DELAY`] is the end announced to the presence writer, with the time of the end. Before all users are announced anew,
//! the ends of such users are announced at once. A presence writer that has been started since would take a repeated
//! announcement for a new sync, and show a user online who has set themselves offline meanwhile (seed 4018 of `swarm`).
//!
//! Every syncing user is announced again at intervals, because an announcement that is not repeated expires (Synapse
//! #16771). A few users are announced at a time, so that a process that serves any sync is never silent for longer than
//! [`SIGN_OF_LIFE_INTERVAL`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::announcements::Announcements;
use super::config::{STOP_DELAY, SWEEP_INTERVAL};
use super::{PresenceConfig, PresenceHandler};
use crate::limits::COMMANDS_QUEUED_MAX;
use crate::observer::Env;
use crate::replication::Connection;
use crate::tasks;
use squall_protocol::{SIGN_OF_LIFE_INTERVAL, UserSync};

/// Delay before all users are announced again, so that requests from several instances share one announcement.
const ANNOUNCE_AGAIN_DELAY: Duration = Duration::from_secs(1);

/// Number of times that all users may be announced again, each time under a new id, while the presence writer remembers
/// the first of these ids. It bounds the ids to clear each time, also where a peer sends `REPLICATE` every second.
const IDS_PER_EXPIRY: u32 = 30;

/// Longest interval between announcements of some users. It leaves room before the next sign of life is due.
const ANNOUNCE_INTERVAL: Duration = SIGN_OF_LIFE_INTERVAL.saturating_sub(Duration::from_secs(1));

/// Largest number of users announced before the outbox must be empty again. Fewer are where the outbox is small.
const ANNOUNCED_AT_ONCE_MAX: usize = 500;
/// Largest length of a device id that is announced, in bytes.
const DEVICE_ID_BYTES_MAX: usize = 255;

/// A round that comes after every other.
const EVERY_ROUND: u64 = u64::MAX;

/// A user's device: the user id, and the device id. The device id is none if it is unknown or does not fit a line.
type Device = (String, Option<String>);

/// A device that was announced to the presence writer.
struct Announced {
    /// The round in which it was first announced.
    round: u64,
    state: State,
}

/// The state of such a device.
enum State {
    /// This number of syncs is under way.
    Syncing(usize),
    /// The last one has ended.
    Stopped { at: Instant, last_sync_ms: i64 },
}

/// Counts the syncs of one instance and announces them to the presence writer.
pub struct UserSyncs {
    devices: RefCell<BTreeMap<Device, Announced>>,
    /// Number of rounds. In each of them, all users are announced under a new id. A user who begins to sync meanwhile is
    /// announced at once, and not a second time in the round (seed 1000399 of `storm`).
    round: Cell<u64>,
    announcements: Announcements,
    /// Set when the presence writer may have missed announcements.
    missed: Notify,
    refresh: Duration,
    /// Shortest interval between two announcements of all users on one connection.
    again_interval: Duration,
    env: Env,
}

/// A sync under way. It ends when this is dropped.
#[must_use = "the sync ends when this is dropped"]
pub struct Syncing {
    syncs: Rc<UserSyncs>,
    device: Device,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.syncs.ended(&self.device);
    }
}

impl UserSyncs {
    /// Returns a record without syncs, and spawns its tasks. `local` is the presence writer, if this instance is it.
    pub fn new(local: Option<Rc<PresenceHandler>>, config: &PresenceConfig, env: Env) -> Rc<Self> {
        let is_local = local.is_some();
        let syncs = Rc::new(UserSyncs {
            devices: RefCell::default(),
            round: Cell::default(),
            announcements: Announcements::new(local, config.process_expiry(), env.seeds.child("instance_id")),
            missed: Notify::new(),
            refresh: config.refresh(),
            again_interval: config.process_expiry() / IDS_PER_EXPIRY,
            env: env.clone(),
        });
        env.tasks.spawn(tasks::SWEEP_USER_SYNCS, Rc::clone(&syncs).sweep());
        if is_local {
            env.tasks.spawn(tasks::ANNOUNCE_USER_SYNCS, Rc::clone(&syncs).announce_locally());
        }
        syncs
    }

    /// Begins a sync that counts for the user's presence. It ends when the returned value is dropped.
    pub fn begin(self: &Rc<Self>, user_id: &str, device_id: Option<&str>) -> Syncing {
        // Clients choose device ids. One that breaks a line must not break the connection for all users.
        let device_id = device_id.filter(|id| is_word(id) && id.len() <= DEVICE_ID_BYTES_MAX);
        let device = (user_id.to_owned(), device_id.map(str::to_owned));
        // A valid user id contains no space. An invalid one must not break the connection for all users.
        if is_word(user_id) {
            self.began(&device);
        }
        Syncing { syncs: Rc::clone(self), device }
    }

    fn began(&self, device: &Device) {
        let mut devices = self.devices.borrow_mut();
        if let Some(Announced { state, .. }) = devices.get_mut(device) {
            *state = match state {
                State::Syncing(count) => State::Syncing(*count + 1),
                State::Stopped { .. } => State::Syncing(1),
            };
        } else {
            devices.insert(device.clone(), Announced { round: self.round.get(), state: State::Syncing(1) });
            drop(devices);
            self.send(device, true, self.now_ms());
        }
    }

    fn ended(&self, device: &Device) {
        let mut devices = self.devices.borrow_mut();
        let Some(Announced { state, .. }) = devices.get_mut(device) else { return };
        match state {
            State::Syncing(1) => *state = State::Stopped { at: Instant::now(), last_sync_ms: self.now_ms() },
            State::Syncing(count) => *count -= 1,
            State::Stopped { .. } => {}
        }
    }

    /// Announces the users who have stopped syncing, for ever.
    async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let now = Instant::now();
            self.announce_ends(|state| has_stopped(state, now));
        }
    }

    /// Begins a new connection to the presence writer: announces all syncing users, and then some of them every few
    /// seconds. So each user is announced again well before the presence writer would take this process for dead.
    pub fn connected(self: &Rc<Self>, connection: &Rc<Connection>) {
        self.announcements.connected(connection, || self.announce_ended());
        self.begin_round();
        let syncs = Rc::clone(self);
        let connection = Rc::clone(connection);
        self.env.tasks.spawn(tasks::ANNOUNCE_USER_SYNCS, async move {
            let mut last = None;
            // The time at which all users are announced again, and the earliest time at which they may be.
            let mut again_at: Option<Instant> = None;
            let mut not_before = Instant::now();
            syncs.announce_round(&connection).await;
            let mut next_at = Instant::now() + syncs.announce_interval();
            while connection.is_open() {
                let wake_at = again_at.map_or(next_at, |at| next_at.min(at));
                // The task ends with its connection.
                tokio::select! {
                    biased;
                    () = connection.over() => {}
                    () = syncs.missed.notified() => {
                        // One announcement answers all requests that arrive meanwhile.
                        again_at.get_or_insert(not_before.max(Instant::now() + ANNOUNCE_AGAIN_DELAY));
                    }
                    () = sleep_until(wake_at) => {
                        if again_at.take_if(|at| *at <= wake_at).is_some() {
                            not_before = Instant::now() + syncs.again_interval;
                            syncs.announce_ended();
                            syncs.announcements.missed();
                            syncs.begin_round();
                            syncs.announce_round(&connection).await;
                        } else {
                            syncs.announce_next(&mut last, &connection).await;
                        }
                        next_at = Instant::now() + syncs.announce_interval();
                    }
                }
            }
        });
    }

    /// Announces all users again under a new id, as on a new connection, because the presence writer may have missed
    /// earlier announcements. All calls within [`ANNOUNCE_AGAIN_DELAY`] share one announcement, and so do all that come
    /// soon after one.
    pub(super) fn announce_again(&self) {
        self.announce_ended();
        self.missed.notify_one();
    }

    /// Announces the users whose last sync has ended, without waiting for those who may come back.
    fn announce_ended(&self) {
        self.announce_ends(|state| matches!(state, State::Stopped { .. }));
    }

    fn announce_ends(&self, is_over: impl Fn(&State) -> bool) {
        let ended: Vec<_> =
            self.devices.borrow_mut().extract_if(.., |_, announced| is_over(&announced.state)).collect();
        for (device, Announced { state, .. }) in ended {
            if let State::Stopped { last_sync_ms, .. } = state {
                self.send(&device, false, last_sync_ms);
            }
        }
    }

    /// Announces all users to the presence writer on this instance once in each refresh interval, for ever.
    async fn announce_locally(self: Rc<Self>) {
        loop {
            tokio::time::sleep(self.refresh).await;
            self.announce(&mut None, usize::MAX, EVERY_ROUND, None).await;
        }
    }

    /// Returns the interval between announcements of some users.
    fn announce_interval(&self) -> Duration {
        self.refresh.min(ANNOUNCE_INTERVAL)
    }

    fn begin_round(&self) {
        self.round.set(self.round.get() + 1);
    }

    /// Announces all users whose syncs began before this round.
    async fn announce_round(&self, connection: &Connection) {
        self.announce(&mut None, usize::MAX, self.round.get(), Some(connection)).await;
    }

    /// Announces the users who come after `last`, and wraps around after the last user. The number announced is such that
    /// each user is announced once in each refresh interval.
    async fn announce_next(&self, last: &mut Option<Device>, connection: &Connection) {
        let all = self.devices.borrow().len() as u128;
        let share = (all * self.announce_interval().as_millis()).div_ceil(self.refresh.as_millis()) as usize;
        let announced = self.announce(last, share, EVERY_ROUND, Some(connection)).await;
        if announced < share {
            self.announce(last, share - announced, EVERY_ROUND, Some(connection)).await;
        }
    }

    /// Announces up to `count` devices that come after `last` and were first announced before round `before`, without
    /// wrapping around. Returns the number announced.
    async fn announce(
        &self,
        last: &mut Option<Device>,
        count: usize,
        before: u64,
        connection: Option<&Connection>,
    ) -> usize {
        // Far fewer than would make the connection drop its peer as too slow.
        let queued_max = connection.map_or(COMMANDS_QUEUED_MAX, Connection::commands_queued_max);
        let at_once_max = (queued_max / 20).clamp(1, ANNOUNCED_AT_ONCE_MAX);
        let mut announced = 0;
        while announced < count && connection.is_none_or(Connection::is_open) {
            let some = self.devices_after(last.as_ref(), (count - announced).min(at_once_max), before);
            *last = some.last().map(|(device, _)| device.clone());
            if some.is_empty() {
                break;
            }
            announced += some.len();
            for (device, last_sync_ms) in some {
                self.send(&device, true, last_sync_ms);
            }
            if let Some(connection) = connection {
                connection.drained().await;
            }
        }
        announced
    }

    /// Returns up to `count` devices that come after `last` and were first announced before round `before`, each with the
    /// time of its last sync.
    fn devices_after(&self, last: Option<&Device>, count: usize, before: u64) -> Vec<(Device, i64)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let devices = self.devices.borrow();
        let now_ms = self.now_ms();
        let last_sync_ms = |state: &State| match state {
            State::Syncing(_) => now_ms,
            State::Stopped { last_sync_ms, .. } => *last_sync_ms,
        };
        let after =
            devices.range::<Device, _>((from, Bound::Unbounded)).filter(|(_, announced)| announced.round < before);
        after.take(count).map(|(device, announced)| (device.clone(), last_sync_ms(&announced.state))).collect()
    }

    /// Announces at once that this process serves no syncs any more, and announces nothing after that.
    pub fn stop(&self) {
        self.announcements.stop();
    }

    fn send(&self, (user_id, device_id): &Device, is_syncing: bool, last_sync_ms: i64) {
        let instance_id = self.announcements.instance_id();
        let user_id = user_id.clone();
        let device_id = device_id.clone();
        self.announcements.send(UserSync { instance_id, user_id, device_id, is_syncing, last_sync_ms });
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.env.clock.now_ms()).unwrap_or(i64::MAX)
    }
}

/// Returns true if the device's last sync ended at least [`STOP_DELAY`] ago.
fn has_stopped(state: &State, now: Instant) -> bool {
    matches!(state, State::Stopped { at, .. } if now.duration_since(*at) >= STOP_DELAY)
}

/// Returns true if `text` can be one of several arguments of a line.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests;
