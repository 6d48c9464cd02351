//! A user's presence does not flap.
//!
//! Each change of a user's presence goes to every process, to the clients of everyone who shares a room with the user, and
//! to every other server. Before Synapse #16066, two devices of a user, one `online` and one `unavailable`, set the user's
//! state in turn at each sync: several changes a second for as long as both were on (Synapse #16057, #16039).
//!
//! No false alarm: a row that repeats the state is no change. The presence writer's own timers change a state at most
//! twice a minute. Other changes come from clients that begin or end to sync or set a state, and a person does not do so
//! [`CHANGES_MAX`] times within [`WINDOW_MS`].
//!
//! Class: load. Nothing is lost, but every process, client and server receives each change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use crate::audit::bounds::{Bound, ID_BYTES_MAX};
use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::rows::{PresenceRow, presence};
use squall_protocol::{Command, Rdata};

/// Length of the window in which changes are counted, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;

/// Number of changes that are allowed to a user within the window.
pub const CHANGES_MAX: usize = 20;

/// Number of users that are remembered. Beyond it, those without a row within the window are forgotten. If that makes no
/// room, rows of other users are not judged.
pub const USERS_MAX: usize = 50_000;

/// Shortest time between two searches for users that can be forgotten, in milliseconds.
const FORGOTTEN_EACH_MS: u64 = 1_000;

/// Length of the longest state that is remembered, in bytes.
const STATE_BYTES_MAX: usize = 32;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A user's state changed too often.
    #[error(
        "{origin}: the state of {user_id} changed {changes} times within {within_ms} ms, between {}. Every change goes to every process \
         and server. If two devices contradict each other, upgrade to a Synapse that combines them (Synapse #16066)",
        states.join(" and ")
    )]
    Flapping {
        #[serde(flatten)]
        origin: Origin,
        user_id: String,
        changes: usize,
        within_ms: u64,
        /// The two states of the last change, in alphabetical order.
        states: [String; 2],
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Load
    }

    fn origin(&self) -> Option<&Origin> {
        let Violation::Flapping { origin, .. } = self;
        Some(origin)
    }
}

/// Counts the changes of each user's presence.
#[derive(Debug, Default)]
pub(super) struct PresenceSteady {
    /// By the hash of the user's id.
    users: BTreeMap<u128, User>,
    /// The time of the last search for users that can be forgotten.
    forgotten_at: Option<SimTime>,
    judged: u64,
    /// Number of rows that were not judged, because there were too many users.
    unjudged: u64,
}

/// A user's presence.
#[derive(Debug)]
struct User {
    state: String,
    /// The times of the changes within the window.
    changes: VecDeque<SimTime>,
    /// The time of the last row.
    last_at: SimTime,
}

impl PresenceSteady {
    fn row_came(&mut self, at: SimTime, rdata: &Rdata) -> Option<Violation> {
        let PresenceRow { user_id, state, .. } = PresenceRow::parse(&rdata.row).ok()?;
        if user_id.len() > ID_BYTES_MAX || state.len() > STATE_BYTES_MAX {
            return None;
        }
        let key = xxh3_128(user_id.as_bytes());
        let Some(user) = self.users.get_mut(&key) else {
            if self.has_room(at) {
                self.users.insert(key, User { state, changes: VecDeque::new(), last_at: at });
            } else {
                self.unjudged += 1;
            }
            return None;
        };
        self.judged += 1;
        user.last_at = at;
        if user.state == state {
            return None;
        }
        let before = std::mem::replace(&mut user.state, state.clone());
        user.changes.push_back(at);
        user.changes.retain(|then| at.ms_since(*then) < WINDOW_MS);
        if user.changes.len() <= CHANGES_MAX {
            return None;
        }
        let within_ms = user.changes.front().map_or(0, |first| at.ms_since(*first));
        let changes = user.changes.len();
        // A state that goes on flapping is found again.
        user.changes.clear();
        let states: BTreeSet<String> = [before, state].into();
        let states = states.into_iter().collect::<Vec<_>>().try_into().expect("a change has two states");
        Some(Violation::Flapping { origin: Origin::from(rdata), user_id, changes, within_ms, states })
    }

    /// Returns true if one more user can be remembered.
    fn has_room(&mut self, now: SimTime) -> bool {
        if self.users.len() >= USERS_MAX && self.forgotten_at.is_none_or(|at| now.ms_since(at) >= FORGOTTEN_EACH_MS) {
            self.users.retain(|_, user| now.ms_since(user.last_at) < WINDOW_MS);
            self.forgotten_at = Some(now);
        }
        self.users.len() < USERS_MAX
    }
}

impl Rule for PresenceSteady {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        let Ok(Command::Rdata(rdata)) = payload.command else { return };
        // Without times no change is too soon.
        let Some(at) = payload.at.filter(|_| rdata.stream.as_str() == presence::NAME) else { return };
        if let Some(violation) = self.row_came(at, rdata) {
            findings.add(payload.line, violation);
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        // A missed row can only hide a change: those that came did happen.
    }

    fn judged(&self) -> u64 {
        self.judged
    }

    fn bounds(&self) -> Vec<Bound> {
        vec![Bound { things: "users with presence at once", max: USERS_MAX, unjudged: self.unjudged }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::{Traffic, found_at};

    /// Returns rows of `@u:h` with these states in turn.
    fn rows(states: &[&str], every_ms: u64, times: u64) -> Vec<(u64, String)> {
        let row = |number: u64| {
            let state = states[number as usize % states.len()];
            format!(r#"RDATA presence p {} ["@u:h","{state}",{number},0,0,null,false]"#, number + 1)
        };
        (0..times).map(|number| (number * every_ms, row(number))).collect()
    }

    fn found(rows: &[(u64, String)]) -> Vec<u64> {
        let rows: Vec<_> = rows.iter().map(|(at, text)| (*at, &**text)).collect();
        found_at(PresenceSteady::default(), &rows).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_state_that_flaps_is_found_for_as_long_as_it_does() {
        assert_eq!(
            found(&rows(&["online", "unavailable"], 100, 300)),
            (1..=14).map(|n| n * 21 + 1).collect::<Vec<_>>()
        );
    }

    #[test]
    fn rows_that_repeat_a_state_and_rare_changes_are_fine() {
        assert!(found(&rows(&["online"], 100, 300)).is_empty());
        assert!(found(&rows(&["online", "unavailable"], 3_000, 300)).is_empty());
    }

    #[test]
    fn each_user_is_counted_alone() {
        let mut rows = rows(&["online", "offline"], 100, 40);
        for (number, (_, row)) in rows.iter_mut().enumerate() {
            *row = row.replace("@u:h", &format!("@u{}:h", number / 2 % 2));
        }
        assert!(found(&rows).is_empty());
    }

    #[test]
    fn a_gap_does_not_hide_the_changes_that_came() {
        let mut traffic = Traffic::default();
        let mut rule = PresenceSteady::default();
        let mut findings = Findings::default();
        for (line, (at, text)) in (1..).zip(rows(&["online", "busy"], 100, 22)) {
            rule.missed(Some(SimTime(at)));
            traffic.check(&mut rule, line, Some(SimTime(at)), &text, &mut findings);
        }
        let [finding] = &findings.0[..] else { panic!("{findings:?}") };
        let message = finding.violation.to_string();
        assert!(
            message.starts_with(
                "presence of p: the state of @u:h changed 21 times within 2000 ms, between busy and online."
            )
        );
    }

    #[test]
    fn users_without_a_change_are_forgotten_if_there_are_too_many() {
        let mut traffic = Traffic::default();
        let mut rule = PresenceSteady::default();
        let mut findings = Findings::default();
        for number in 0..=USERS_MAX as u64 {
            let row = format!(r#"RDATA presence p {number} ["@{number}:h","online",0,0,0,null,false]"#);
            traffic.check(&mut rule, number, Some(SimTime(number * 2)), &row, &mut findings);
        }
        assert_eq!(rule.users.len() as u64, WINDOW_MS / 2);
        assert_eq!(rule.bounds()[0].unjudged, 0);
    }

    #[test]
    fn users_who_are_too_many_at_once_are_not_judged_and_the_others_still_are() {
        let mut traffic = Traffic::default();
        let mut rule = PresenceSteady::default();
        let mut findings = Findings::default();
        let mut row = |at: u64, user: usize, state: &str| {
            let row = format!(r#"RDATA presence p 1 ["@{user}:h","{state}",0,0,0,null,false]"#);
            traffic.check(&mut rule, 1, Some(SimTime(at)), &row, &mut findings);
        };
        for user in 0..USERS_MAX + 10 {
            row(0, user, "online");
        }
        for change in 0..=CHANGES_MAX as u64 {
            let state = if change % 2 == 0 { "busy" } else { "online" };
            row(change, 0, state);
            row(change, USERS_MAX, state);
        }
        assert_eq!(rule.bounds()[0].unjudged, 10 + CHANGES_MAX as u64 + 1);
        let found: Vec<_> = findings.0.iter().map(|finding| finding.violation.to_string()).collect();
        assert_eq!((found.len(), found[0].contains("the state of @0:h changed")), (1, true), "{found:?}");
    }
}
