//! Presence as set.
//!
//! A user's presence follows from the states of their devices: `busy` before `online` before `unavailable` before
//! `offline`. In detail:
//!
//! 1. Each row of the presence writer has a state that the user's devices can give: as the clients have set it, or by a
//!    sync, or by the idle timer, and no lower than a state that was set and cannot have been forgotten yet (Synapse
//!    #16057: the last device won; #16066: `busy` was lost at a sync).
//! 2. A row has the status message that was set last.
//! 3. When a request is acknowledged, the database has it.
//! 4. In the calm, a state changes over time within a few seconds of the time that the constants say. It never changes
//!    earlier.
//! 5. After the storm, each user has exactly the state that their syncing devices give, within the calm bound. Until then
//!    the user is pending.
//!
//! The model has for each device the set of states that it may have. The set has one state where requests were
//! acknowledged one after the other.
//!
//! No false alarm:
//!
//! - A request that was not acknowledged may have taken effect or not, and may do so for minutes.
//! - Requests for one device that overlap take effect in any order.
//! - The states of devices do not outlast the presence writer's process. After its restart a device may have the stored
//!   state of its user, or be online by its sync. A row of the ended process may be committed after the next one has begun,
//!   and before that one reads the states (seed 1000086 of `redis_swarm`).
//! - A sync is announced over a network that may lose it for a while. So the writer may forget a device that syncs, and its
//!   state, unless the request is recent or the sync is with the writer's own process. It may also take its own process for
//!   dead, if that was frozen.
//! - A row is computed before it is committed. The rows that are judged by an acknowledged request are those with higher
//!   tokens than the user's newest row at the acknowledgement: the writer writes one row of a user after the other.

mod device;
mod limits;
mod state;
mod violation;

use std::collections::BTreeMap;
use std::iter;

use strum::VariantArray;

use self::device::{Device, Strictness};
use self::limits::Limits;
use self::state::{State, States, combined};
pub use self::violation::Violation;
use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::pending::{Pending, PendingReason};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::rows::{PresenceRow, Row, presence};
use squall_protocol::{InstanceName, Token};

/// Time that the presence writer may take from its start until it has loaded the users' states.
const START_MS: u64 = 60_000;
/// Time for which an end of a sync may stay unknown, besides the expiry of its process: the network holds lines back.
const HELD_BACK_MS: u64 = 180_000;
/// Longest time between the end of a sync with the presence writer's own process and its announcement.
const LOCAL_END_MS: u64 = 20_000;
/// Time after the storm until no transaction is slow and no back-off is long any more.
const QUIET_MS: u64 = 20_000;
/// Longest time between a change and its row, in the calm.
const LATE_MS: u64 = 3_000;
/// Interval between checks for changes that are late.
const CHECK_INTERVAL_MS: u64 = 250;

/// A user, as the clients and the rows show them.
#[derive(Debug, Default)]
struct User {
    devices: BTreeMap<Option<String>, Device>,
    /// The newest row: its token, its state and its status message.
    newest: Option<(Token, State, Option<String>)>,
    /// Rows up to this token may be older than the last acknowledged request.
    judged_after: Token,
    /// The status message, if it is known.
    status: Option<Option<String>>,
    /// The requests under way that set a status, and true for each that was alone.
    status_asked: BTreeMap<u64, (Option<String>, bool)>,
    /// The states that a restarted presence writer may have found, and the time until which they count.
    stored: (States, SimTime),
    /// The time since which the state is wrong, and true if that is reported.
    wrong_since: Option<(SimTime, bool)>,
}

impl User {
    fn state(&self) -> State {
        self.newest.as_ref().map_or(State::Offline, |(_, state, _)| *state)
    }

    /// Returns the states that the user may have.
    fn possible(&self, at: SimTime, limits: &Limits, strictness: Strictness) -> States {
        let devices = self.devices.values().map(|device| device.options(at, limits, strictness));
        let (stored, until) = self.stored;
        let is_stored = at <= until && !matches!(strictness, Strictness::End { .. });
        combined(devices.chain(is_stored.then(|| stored | State::Offline.into())))
    }

    /// Records that a restarted presence writer may find `state` stored.
    fn may_be_stored(&mut self, state: State) {
        let found = states_found(state);
        for device in self.devices.values_mut() {
            device.may_inherit(found);
        }
        self.stored.0 |= found;
    }

    /// Returns true if a device must have a state that was set.
    fn is_certain(&self, at: SimTime, limits: &Limits) -> bool {
        self.devices.values().any(|device| device.is_certain(at, limits))
    }

    fn began_to_set_status(&mut self, request: u64, status: Option<String>) {
        let is_alone = self.status_asked.is_empty();
        for (_, other_is_alone) in self.status_asked.values_mut() {
            *other_is_alone = false;
        }
        self.status_asked.insert(request, (status, is_alone));
        self.status = None;
    }

    fn has_set_status(&mut self, request: u64) {
        if let Some((status, is_alone)) = self.status_asked.remove(&request) {
            self.status = is_alone.then_some(status);
        }
    }
}

/// Returns the states that a device may take over from a stored one: none from `offline`, and `online` becomes `unavailable`
/// with time.
fn states_found(stored: State) -> States {
    match stored {
        State::Offline => States::default(),
        State::Online => States::from(State::Online) | State::Unavailable.into(),
        state => state.into(),
    }
}

/// Checks users' presence against the states of their devices.
#[derive(Debug)]
pub struct PresenceAsSet {
    writer: Option<InstanceName>,
    is_writer_up: bool,
    limits: Limits,
    users: BTreeMap<String, User>,
    /// The requests under way: their users and devices.
    requests: BTreeMap<u64, (String, Option<String>)>,
    /// The time of the last transaction of the writer's that was committed after its process had ended.
    late_commit_at: Option<SimTime>,
    calm_at: Option<SimTime>,
    checked_at: SimTime,
    judged: u64,
}

impl PresenceAsSet {
    fn is_writer(&self, instance: &InstanceName) -> bool {
        self.writer.as_ref() == Some(instance)
    }

    fn writer_began(&mut self, at: SimTime) {
        for user in self.users.values_mut() {
            let stored = states_found(user.state());
            for device in user.devices.values_mut() {
                device.writer_began(stored, at);
            }
            let time_out =
                self.limits.offline_ms.max(if stored.contains(State::Busy) { self.limits.busy_ms } else { 0 });
            user.stored = (stored, SimTime(at.0 + START_MS + time_out));
        }
    }

    fn ended(&mut self, at: SimTime, instance: &InstanceName) {
        let thought_until = self.thought_until(at, instance);
        for device in self.users.values_mut().flat_map(|user| user.devices.values_mut()) {
            device.process_ended(instance, thought_until);
        }
    }

    /// Returns the time until which the presence writer may think that a sync with `instance` that ended at `at` goes on.
    fn thought_until(&self, at: SimTime, instance: &InstanceName) -> SimTime {
        let ms = if self.is_writer(instance) { LOCAL_END_MS } else { self.limits.thought_ms + HELD_BACK_MS };
        SimTime(at.0 + ms)
    }

    fn committed(&mut self, at: SimTime, token: Token, row: &PresenceRow) -> Result<(), Violation> {
        let Some(state) = State::named(&row.state) else { return Ok(()) };
        let user = self.users.entry(row.user_id.clone()).or_default();
        if user.newest.as_ref().is_some_and(|(newest, ..)| *newest > token) {
            return Ok(());
        }
        user.newest = Some((token, state, row.status_msg.clone()));
        if self.late_commit_at == Some(at) && at <= user.stored.1 {
            user.may_be_stored(state);
        }
        if !self.is_writer_up || token <= user.judged_after {
            return Ok(());
        }
        self.judged += u64::from(user.is_certain(at, &self.limits));
        let possible = user.possible(at, &self.limits, Strictness::Storm);
        let name = row.user_id.clone();
        if !possible.contains(state) {
            let state = state.as_str().to_owned();
            return Err(Violation::WrongState { user: name, token, state, possible: possible.to_string() });
        }
        match &user.status {
            Some(expected) if *expected != row.status_msg => {
                let (status, expected) = (row.status_msg.clone(), expected.clone());
                Err(Violation::WrongStatus { user: name, token, status, expected })
            }
            _ => Ok(()),
        }
    }

    fn acknowledged(&mut self, at: SimTime, request: u64) -> Result<(), Violation> {
        let Some((name, device)) = self.requests.remove(&request) else { return Ok(()) };
        let Some(user) = self.users.get_mut(&name) else { return Ok(()) };
        user.devices.entry(device).or_default().acknowledged(request, at, &self.limits);
        user.has_set_status(request);
        user.judged_after = user.newest.as_ref().map_or(Token(0), |(token, ..)| *token);
        let possible = user.possible(at, &self.limits, Strictness::Storm);
        self.judged += 1;
        if !possible.contains(user.state()) {
            let state = user.state().as_str().to_owned();
            return Err(Violation::NotKept { user: name, state, possible: possible.to_string() });
        }
        let (token, status) =
            user.newest.as_ref().map_or((Token(0), None), |(token, _, status)| (*token, status.clone()));
        match &user.status {
            Some(expected) if *expected != status => {
                let expected = expected.clone();
                Err(Violation::WrongStatus { user: name, token, status, expected })
            }
            _ => Ok(()),
        }
    }

    /// Returns a change that did not come in time.
    fn late(&mut self, at: SimTime) -> Result<(), Violation> {
        let Some(calm_at) = self.calm_at.filter(|_| self.is_writer_up) else { return Ok(()) };
        if at.ms_since(self.checked_at) < CHECK_INTERVAL_MS {
            return Ok(());
        }
        self.checked_at = at;
        let quiet_at = SimTime(calm_at.0 + QUIET_MS);
        for (name, user) in &mut self.users {
            let possible = user.possible(at, &self.limits, Strictness::InTime { calm_at });
            if possible.contains(user.state()) {
                user.wrong_since = None;
                continue;
            }
            let (since, is_reported) = user.wrong_since.get_or_insert((at, false));
            let late_ms = at.ms_since((*since).max(quiet_at));
            if late_ms > LATE_MS && !*is_reported {
                *is_reported = true;
                let (user, state) = (name.clone(), user.state().as_str().to_owned());
                return Err(Violation::Late { user, state, possible: possible.to_string(), late_ms });
            }
        }
        Ok(())
    }

    /// Returns the users whose state is not what their syncing devices give, with the states that they should have.
    fn wrong(&self, at: SimTime) -> impl Iterator<Item = (&String, State, States)> {
        let strictness = self.calm_at.map_or(Strictness::Storm, |calm_at| Strictness::End { calm_at });
        let users = self.users.iter().filter(|(_, user)| !user.devices.is_empty());
        let possible =
            move |(name, user): (_, &User)| (name, user.state(), user.possible(at, &self.limits, strictness));
        users.map(possible).filter(|(_, state, possible)| !possible.contains(*state))
    }
}

impl Invariant for PresenceAsSet {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = Kind::VARIANTS;

    fn new(topology: &Topology) -> Self {
        let writer = topology.writers().find(|(stream, ..)| stream.as_str() == presence::NAME);
        let (idle_ms, busy_ms) = topology.presence_times_ms();
        PresenceAsSet {
            writer: writer.map(|(.., writer)| writer.clone()),
            is_writer_up: false,
            limits: Limits::new(idle_ms, busy_ms, topology.process_expiry_ms()),
            users: BTreeMap::new(),
            requests: BTreeMap::new(),
            late_commit_at: None,
            calm_at: None,
            checked_at: SimTime(0),
            judged: 0,
        }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } if self.is_writer(instance) => {
                self.is_writer_up = true;
                self.writer_began(at);
            }
            Observation::Stopped { instance, .. } => {
                self.ended(at, instance);
                if self.is_writer(instance) {
                    self.is_writer_up = false;
                    self.writer_began(at);
                }
            }
            Observation::LateCommit { instance } if self.is_writer(instance) => self.late_commit_at = Some(at),
            Observation::Frozen { instance } if self.is_writer(instance) => {
                for device in self.users.values_mut().flat_map(|user| user.devices.values_mut()) {
                    device.writer_stood_still();
                }
            }
            Observation::SyncBegan { instance, boot, device } => {
                let is_local = self.is_writer(instance);
                let user = self.users.entry(device.user.clone()).or_default();
                let (stored, until) = user.stored;
                let device = user.devices.entry(device.device.clone()).or_default();
                if at <= until {
                    device.may_inherit(stored);
                }
                device.sync_began((instance.clone(), *boot), is_local, at);
            }
            Observation::SyncEnded { instance, boot, device } => {
                let is_local = self.is_writer(instance);
                let thought_until = self.thought_until(at, instance);
                let user = self.users.entry(device.user.clone()).or_default();
                let device = user.devices.entry(device.device.clone()).or_default();
                device.sync_ended(&(instance.clone(), *boot), is_local, thought_until);
            }
            Observation::PresenceAsked { request, device, state, is_sync, status, .. } => {
                let Some(state) = State::named(state) else { return Ok(()) };
                self.requests.insert(*request, (device.user.clone(), device.device.clone()));
                let user = self.users.entry(device.user.clone()).or_default();
                user.devices.entry(device.device.clone()).or_default().asked(*request, state, *is_sync, at);
                if !is_sync {
                    let status = status.clone().filter(|_| state != State::Offline);
                    user.began_to_set_status(*request, status);
                }
            }
            Observation::PresenceSet { request, .. } => return self.acknowledged(at, *request),
            Observation::Committed { row: Row::Presence(row), token, .. } => return self.committed(at, *token, row),
            Observation::Calm => self.calm_at = Some(at),
            Observation::CalmOver => {
                let wrong = self.wrong(at).next().map(|(user, state, possible)| Violation::WrongAtEnd {
                    user: user.clone(),
                    state: state.as_str().to_owned(),
                    possible: possible.to_string(),
                });
                return wrong.map_or(Ok(()), Err);
            }
            _ => {}
        }
        self.late(at)
    }

    fn pending<'a>(&'a self, _scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a> {
        let Some(writer) = self.writer.as_ref().filter(|_| self.calm_at.is_some()) else {
            return Box::new(iter::empty());
        };
        let in_words =
            |(user, state, possible): (&String, State, States)| format!("{user} is {}, not {possible}", state.as_str());
        let users: Vec<String> = self.wrong(self.checked_at).map(in_words).collect();
        let follower = || FollowerKey::new(writer, &presence::NAME.into(), writer);
        let pending =
            (!users.is_empty()).then(|| Pending { follower: follower(), what: PendingReason::States { users } });
        Box::new(pending.into_iter())
    }

    fn is_pending(&self, _scene: &Scene) -> bool {
        self.writer.is_some() && self.calm_at.is_some() && self.wrong(self.checked_at).next().is_some()
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests;
