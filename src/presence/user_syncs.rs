//! Who is syncing on this instance.
//!
//! Clients sync again and again, so a user whose last sync has ended is not gone: only if nothing follows for
//! [`STOP_DELAY`] is the presence writer told, and then with the time at which it ended.
//!
//! Everybody who syncs is announced again once in a while, for what nobody repeats expires (Synapse #16771); a few of
//! them at a time, so that a process that serves anybody is never silent for longer than [`SIGN_OF_LIFE_INTERVAL`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::PresenceHandler;
use super::announcements::Announcements;
use crate::env::Env;
use crate::instance::config::PresenceConfig;
use crate::protocol::{SIGN_OF_LIFE_INTERVAL, UserSync};
use crate::replication::Link;

/// How long after the end of a user's last sync the presence writer is told, at least.
pub const STOP_DELAY: Duration = Duration::from_secs(10);
/// How often those are looked for of whom it is to be told.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long those are waited for who may also want to be told again.
pub const SAY_AGAIN_DELAY: Duration = Duration::from_secs(1);

/// How often it is some users' turn to be announced again: as soon as it has to be if, then, others are waited for first.
const TURN_INTERVAL: Duration = SIGN_OF_LIFE_INTERVAL.saturating_sub(SAY_AGAIN_DELAY);

/// How many are announced again before what waits in the outbox is given time to go out: far fewer than make a
/// connection give up its peer as too slow.
const ANNOUNCED_AT_ONCE: usize = 500;
/// A device id longer than this is no word to put on a line.
const DEVICE_ID_BYTES_MAX: usize = 255;

/// A user's device. None if it is not known, or its id is none that a line can carry.
type Device = (String, Option<String>);

/// What is known of a device that the presence writer has been told of.
enum State {
    /// So many syncs are under way.
    Syncing(usize),
    /// The last one has ended.
    Stopped { at: Instant, last_sync_ms: i64 },
}

/// Counts the syncs of one instance and tells the presence writer of them.
pub struct UserSyncs {
    devices: RefCell<BTreeMap<Device, State>>,
    announcements: Announcements,
    /// Somebody may have missed what was said.
    missed: Notify,
    refresh: Duration,
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
    /// Nobody is syncing yet. `here` is the presence writer if this instance is it. Spawns what tells it of the rest.
    pub fn new(here: Option<Rc<PresenceHandler>>, config: &PresenceConfig, env: Env) -> Rc<Self> {
        let is_here = here.is_some();
        let syncs = Rc::new(UserSyncs {
            devices: RefCell::default(),
            announcements: Announcements::new(here, config.process_expiry(), env.chance.of("instance_id")),
            missed: Notify::new(),
            refresh: config.refresh(),
            env: env.clone(),
        });
        env.tasks.spawn("sweep_user_syncs", Rc::clone(&syncs).sweep());
        if is_here {
            env.tasks.spawn("announce_user_syncs", Rc::clone(&syncs).announce_here());
        }
        syncs
    }

    /// A sync begins that concerns the user's presence. It goes on until what this returns is dropped.
    pub fn begin(self: &Rc<Self>, user_id: &str, device_id: Option<&str>) -> Syncing {
        // Clients choose device ids: one that breaks a line must not break the connection for everybody.
        let device_id = device_id.filter(|id| is_word(id) && id.len() <= DEVICE_ID_BYTES_MAX);
        let device = (user_id.to_owned(), device_id.map(str::to_owned));
        // No user id has ever had a space in it; this one must not cost everybody else the connection.
        if is_word(user_id) {
            self.began(&device);
        }
        Syncing { syncs: Rc::clone(self), device }
    }

    fn began(&self, device: &Device) {
        let before = self.devices.borrow_mut().remove(device);
        let count = match &before {
            Some(State::Syncing(count)) => *count,
            Some(State::Stopped { .. }) | None => 0,
        };
        self.devices.borrow_mut().insert(device.clone(), State::Syncing(count + 1));
        if before.is_none() {
            self.say(device, true, self.now_ms());
        }
    }

    fn ended(&self, device: &Device) {
        let mut devices = self.devices.borrow_mut();
        let Some(state) = devices.get_mut(device) else { return };
        match state {
            State::Syncing(1) => *state = State::Stopped { at: Instant::now(), last_sync_ms: self.now_ms() },
            State::Syncing(count) => *count -= 1,
            State::Stopped { .. } => {}
        }
    }

    /// Tells of those who have stopped, for ever.
    async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let now = Instant::now();
            let is_over =
                |state: &State| matches!(state, State::Stopped { at, .. } if now.duration_since(*at) >= STOP_DELAY);
            let over: Vec<_> = self.devices.borrow_mut().extract_if(.., |_, state| is_over(state)).collect();
            for (device, state) in over {
                if let State::Stopped { last_sync_ms, .. } = state {
                    self.say(&device, false, last_sync_ms);
                }
            }
        }
    }

    /// A connection to the presence writer was made. It is told of everybody, and then of some every few seconds: of
    /// everybody again in good time before it would take this process for dead.
    pub fn connected(self: &Rc<Self>, link: &Rc<Link>) {
        self.announcements.connected(link);
        let (syncs, link) = (Rc::clone(self), Rc::clone(link));
        self.env.tasks.spawn("announce_user_syncs", async move {
            let mut last = None;
            syncs.announce_all(Some(&link)).await;
            while link.is_open() {
                // A connection that is lost takes its task with it.
                tokio::select! {
                    biased;
                    () = link.over() => {}
                    () = syncs.missed.notified() => {
                        // Whoever asks now, all of them are told at once.
                        tokio::time::sleep(SAY_AGAIN_DELAY).await;
                        if link.is_open() {
                            syncs.announcements.connected(&link);
                            syncs.announce_all(Some(&link)).await;
                        }
                    }
                    () = tokio::time::sleep(syncs.turn()) => syncs.announce_next(&mut last, &link).await,
                }
            }
        });
    }

    /// Somebody may have missed what was said on the connection: it is said again, once for all who ask within
    /// [`SAY_AGAIN_DELAY`], and under a new id, as if there was a new connection.
    pub fn say_again(&self) {
        self.missed.notify_one();
    }

    /// The same where the presence writer is this instance itself.
    async fn announce_here(self: Rc<Self>) {
        loop {
            tokio::time::sleep(self.refresh).await;
            self.announce_all(None).await;
        }
    }

    /// How often it is some users' turn: more often than that if everybody's comes more often.
    fn turn(&self) -> Duration {
        self.refresh.min(TURN_INTERVAL)
    }

    async fn announce_all(&self, link: Option<&Link>) {
        self.announce(&mut None, usize::MAX, link).await;
    }

    /// Announces those whose turn it is after `last`, which goes round: so many that everybody's turn comes once in
    /// each refresh.
    async fn announce_next(&self, last: &mut Option<Device>, link: &Link) {
        let all = self.devices.borrow().len() as u128;
        let share = (all * self.turn().as_millis()).div_ceil(self.refresh.as_millis()) as usize;
        let said = self.announce(last, share, Some(link)).await;
        if said < share {
            self.announce(last, share - said, Some(link)).await;
        }
    }

    /// Announces up to so many of those that come after `last`, none after the last of all. Says how many there were.
    async fn announce(&self, last: &mut Option<Device>, count: usize, link: Option<&Link>) -> usize {
        let mut said = 0;
        while said < count {
            let some = self.devices_after(last.as_ref(), (count - said).min(ANNOUNCED_AT_ONCE));
            *last = some.last().map(|(device, _)| device.clone());
            if some.is_empty() {
                break;
            }
            said += some.len();
            for (device, last_sync_ms) in some {
                self.say(&device, true, last_sync_ms);
            }
            if let Some(link) = link {
                link.drained().await;
                if !link.is_open() {
                    break;
                }
            }
        }
        said
    }

    /// Up to so many of those that come after `last`, as they are now, with when they last synced.
    fn devices_after(&self, last: Option<&Device>, count: usize) -> Vec<(Device, i64)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let (devices, now_ms) = (self.devices.borrow(), self.now_ms());
        let last_sync_ms = |state: &State| match state {
            State::Syncing(_) => now_ms,
            State::Stopped { last_sync_ms, .. } => *last_sync_ms,
        };
        let after = devices.range::<Device, _>((from, Bound::Unbounded));
        after.take(count).map(|(device, state)| (device.clone(), last_sync_ms(state))).collect()
    }

    /// This process serves nobody any more: the presence writer is told at once, and nothing after that.
    pub fn stop(&self) {
        self.announcements.stop();
    }

    fn say(&self, (user_id, device_id): &Device, is_syncing: bool, last_sync_ms: i64) {
        let instance_id = self.announcements.instance_id();
        let (user_id, device_id) = (user_id.clone(), device_id.clone());
        self.announcements.say(UserSync { instance_id, user_id, device_id, is_syncing, last_sync_ms });
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.env.clock.now_ms()).unwrap_or(i64::MAX)
    }
}

/// Whether a line can carry `text` as one of several arguments.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests;
