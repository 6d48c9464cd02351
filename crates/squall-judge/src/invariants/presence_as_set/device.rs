//! The states that one device may have, as far as the requests of clients and the syncs tell.

use std::collections::BTreeMap;

use super::limits::Limits;
use super::state::{State, States};
use crate::observation::SimTime;
use squall_protocol::InstanceName;

/// Time after which a request that was not acknowledged has no effect any more, if it has not had it: longer than a
/// client repeats it, and the network holds it back.
const UNANSWERED_MS: u64 = 180_000;

/// The strictness of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// Changes may be late, and announcements lost.
    Storm,
    /// Changes over time happen at their time. Announcements may be lost.
    InTime {
        /// The beginning of the calm.
        calm_at: SimTime,
    },
    /// Everything has arrived, and every device that does not sync has gone offline.
    End {
        /// The beginning of the calm.
        calm_at: SimTime,
    },
}

/// A request that was not acknowledged yet.
#[derive(Debug)]
struct Asked {
    state: State,
    is_sync: bool,
    at: SimTime,
    /// True if no other request for the device was under way at any time since, and the presence writer ran on.
    is_alone: bool,
}

/// The state that a client has certainly set: it took effect between two times.
#[derive(Debug, Clone, Copy)]
struct Told {
    state: State,
    from: SimTime,
    until: SimTime,
}

/// One device of a user.
#[derive(Debug, Default)]
pub(super) struct Device {
    asked: BTreeMap<u64, Asked>,
    told: Option<Told>,
    /// The time of the last acknowledgement.
    acknowledged_at: SimTime,
    /// The states it may have besides: those of requests in an unknown order, and from before a restart.
    maybe: States,
    /// The number of syncs under way with each process.
    syncs: BTreeMap<(InstanceName, u64), usize>,
    /// True if a sync of the device may have brought it online.
    has_synced: bool,
    /// The time since which it has been syncing with the presence writer's own process, without a break.
    local_since: Option<SimTime>,
    /// The time until which the presence writer may think that it syncs or has just stopped.
    thought_until: SimTime,
    /// The earliest and the latest time at which it may last have become online.
    online_since: Option<SimTime>,
    online_until: SimTime,
}

impl Device {
    /// Records that a client begins to set the state.
    pub(super) fn asked(&mut self, request: u64, state: State, is_sync: bool, at: SimTime) {
        let is_alone = self.asked.is_empty();
        for other in self.asked.values_mut() {
            other.is_alone = false;
        }
        self.asked.insert(request, Asked { state, is_sync, at, is_alone });
        if state == State::Online {
            self.came_online(at, SimTime(at.0 + UNANSWERED_MS));
        }
    }

    /// Records that the request was acknowledged.
    pub(super) fn acknowledged(&mut self, request: u64, at: SimTime, limits: &Limits) {
        let Some(Asked { state, is_sync, at: from, is_alone }) = self.asked.remove(&request) else { return };
        self.acknowledged_at = at;
        let was_busy = self.told.is_some_and(|told| told.state == State::Busy && at < limits.kept_until(told));
        let may_have_been_busy = self.may(at, limits).contains(State::Busy);
        let stays_busy = is_sync && was_busy;
        if is_alone && (!is_sync || stays_busy || !may_have_been_busy) {
            let state = if stays_busy { State::Busy } else { state };
            self.told = Some(Told { state, from, until: at });
            self.maybe = States::default();
            self.has_synced = false;
            self.online_since = (state == State::Online).then_some(from);
            self.online_until = at;
        } else {
            self.maybe |= self.told.take().map(|told| told.state).into_iter().chain([state]).collect();
        }
    }

    /// Records that a sync began. `is_local` is true if it is with the presence writer's own process.
    pub(super) fn sync_began(&mut self, process: (InstanceName, u64), is_local: bool, at: SimTime) {
        *self.syncs.entry(process).or_default() += 1;
        self.has_synced = true;
        if is_local {
            self.local_since.get_or_insert(at);
        }
        self.came_online(at, at);
    }

    /// Records that a sync ended, and the time until which the presence writer may not know that.
    pub(super) fn sync_ended(&mut self, process: &(InstanceName, u64), is_local: bool, thought_until: SimTime) {
        let Some(count) = self.syncs.get_mut(process) else { return };
        *count -= 1;
        if *count == 0 {
            self.syncs.remove(process);
            self.thought_until = self.thought_until.max(thought_until);
            if is_local {
                self.local_since = None;
            }
        }
    }

    /// Records that a process ended, and the time until which the presence writer may not know that.
    pub(super) fn process_ended(&mut self, instance: &InstanceName, thought_until: SimTime) {
        let before = self.syncs.len();
        self.syncs.retain(|(on, _), _| on != instance);
        if self.syncs.len() < before {
            self.thought_until = self.thought_until.max(thought_until);
        }
    }

    /// Records that the presence writer began anew. `stored` are the states that it may have found in the database.
    pub(super) fn writer_began(&mut self, stored: States, at: SimTime) {
        for asked in self.asked.values_mut() {
            asked.is_alone = false;
        }
        self.maybe |= self.told.take().map(|told| told.state).into_iter().collect();
        self.may_inherit(stored);
        self.local_since = None;
        self.has_synced |= !self.syncs.is_empty();
        self.online_until = self.online_until.max(at);
    }

    /// Records that the device may take over one of the states that its user had before a restart of the presence writer.
    pub(super) fn may_inherit(&mut self, stored: States) {
        self.maybe |= stored;
        // An activity from before the restart may be older than any that was seen.
        self.online_since = Some(SimTime(0));
    }

    /// Records that the presence writer stood still: it may have taken its own process for dead.
    pub(super) fn writer_stood_still(&mut self) {
        self.local_since = None;
    }

    fn came_online(&mut self, earliest: SimTime, latest: SimTime) {
        self.online_since = Some(self.online_since.map_or(earliest, |since| since.min(earliest)));
        self.online_until = self.online_until.max(latest);
    }

    /// Returns the time until which the device keeps what was set, whether it syncs or not.
    fn certain_until(&self, limits: &Limits) -> SimTime {
        self.told.map_or(SimTime(0), |told| limits.kept_after(told.from, told.state))
    }

    /// Returns the state that the device must have: one that was set and cannot have been forgotten.
    fn must(&self, at: SimTime, limits: &Limits) -> Option<State> {
        let told = self.told.filter(|_| self.asked.is_empty())?;
        let certain_until = limits.kept_after(told.from, told.state);
        let is_kept = at < certain_until || self.local_since.is_some_and(|since| since < certain_until);
        is_kept.then_some(told.state)
    }

    /// Returns the states that the device may have while it is not offline, and `Offline` if the client may have set it.
    fn may(&self, at: SimTime, limits: &Limits) -> States {
        let asked = self.asked.values().map(|asked| asked.state);
        let mut states = self.maybe | asked.chain(self.told.map(|told| told.state)).collect();
        let was_forgotten = at >= self.certain_until(limits);
        let syncs = self.has_synced || !self.syncs.is_empty() || self.thought_until >= self.certain_until(limits);
        if self.told.is_none() && self.has_synced || self.told.is_some() && was_forgotten && syncs {
            states |= State::Online.into();
        }
        let is_idle = self.online_since.is_none_or(|since| at.ms_since(since) >= limits.idle_ms);
        if states.contains(State::Online) && is_idle {
            states |= State::Unavailable.into();
        }
        states
    }

    /// Returns the states that the device may have.
    pub(super) fn options(&self, at: SimTime, limits: &Limits, strictness: Strictness) -> States {
        let is_end = matches!(strictness, Strictness::End { .. });
        if is_end && self.syncs.is_empty() {
            return State::Offline.into();
        }
        if let Some(state) = self.must(at, limits) {
            let mut states = States::from(state);
            let Some(told) = self.told.filter(|told| told.state == State::Online) else { return states };
            if at.ms_since(told.from) >= limits.idle_ms {
                states |= State::Unavailable.into();
            }
            let is_late = strictness != Strictness::Storm && at.ms_since(told.until) > limits.idle_ms;
            if is_late && at < self.certain_until(limits) {
                states = states.without(State::Online);
            }
            return states;
        }
        let mut states = self.may(at, limits);
        let calm_at = match strictness {
            Strictness::Storm => {
                states |= State::Offline.into();
                return states;
            }
            Strictness::InTime { calm_at } | Strictness::End { calm_at } => calm_at,
        };
        let longest = states.greatest().unwrap_or(State::Offline);
        let unanswered = self.asked.values().map(|asked| asked.at.0 + UNANSWERED_MS).max();
        let known_until = unanswered.unwrap_or(0).max(self.acknowledged_at.0).max(self.thought_until.0);
        let is_gone = self.syncs.is_empty() && at > limits.kept_after(SimTime(known_until), longest);
        if is_gone {
            return State::Offline.into();
        }
        if !is_end {
            states |= State::Offline.into();
        }
        // A device may have been lost and found again until the network was well.
        let last_online = self.online_until.max(SimTime(calm_at.0 + limits.settled_ms));
        if at.ms_since(last_online) > limits.idle_ms {
            states = states.without(State::Online);
        }
        states
    }

    /// Returns true if the device must have the state that was set.
    pub(super) fn is_certain(&self, at: SimTime, limits: &Limits) -> bool {
        self.must(at, limits).is_some()
    }
}

impl Limits {
    /// Returns the time until which a device in `state` is kept without a sign of life after `at`.
    fn kept_after(&self, at: SimTime, state: State) -> SimTime {
        let time_out = if state == State::Busy { self.busy_ms } else { self.offline_ms };
        SimTime(at.0.saturating_add(time_out))
    }

    fn kept_until(&self, told: Told) -> SimTime {
        self.kept_after(told.from, told.state)
    }
}
