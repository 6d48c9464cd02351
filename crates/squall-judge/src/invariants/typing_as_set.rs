//! Typing as set.
//!
//! A user types in a room from their request until they stop, or until the time-out of their last request. In detail:
//!
//! 1. Each row of the typing writer has every user who must be typing, and no user who cannot be.
//! 2. A user who began to type is in the room's newest row, and one whose time is over is in it no more, within a few
//!    seconds.
//!
//! `no_missed_rows` compares the followers with the writer, and nothing else checks the writer. A writer that forgets a
//! time-out, or uses that of an earlier request, has followers that agree with it.
//!
//! No false alarm:
//!
//! - A request to the writer itself takes effect at once. One through another instance takes effect at some time between
//!   its beginning and its answer, or without an answer within minutes; until then the user may type or not.
//! - Typing is in memory, and ends with the writer's process. A process that was asked to stop runs no timers any more.
//! - A frozen process runs no timers either. After it continues it has the same few seconds.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use strum::VariantArray;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::rows::{Row, TypingRow, typing};
use squall_protocol::{InstanceName, Token};

/// Longest time between a change and its row.
const LATE_MS: u64 = 3_000;
/// Time for which a request through another instance may still take effect, if it has no answer.
const UNANSWERED_MS: u64 = 180_000;
/// Interval between checks for changes that are late.
const CHECK_INTERVAL_MS: u64 = 250;

/// A row that is not what the users have made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A row lacks a user whose time is not over.
    #[error("{user} is not typing in {room} by token {token}, and their time is over at {until}")]
    StoppedEarly { user: String, room: String, token: Token, until: SimTime },
    /// A row has a user who cannot be typing.
    #[error("{user} is typing in {room} by token {token}, and has stopped, or their time is over since {until}")]
    NotTyping { user: String, room: String, token: Token, until: SimTime },
    /// A user began to type, and no row says so.
    #[error("{user} has been typing in {room} since {since}, and the newest row does not have them")]
    NotShown { user: String, room: String, since: SimTime },
    /// A user's time is over, and the newest row still has them.
    #[error("{user} is still typing in {room} by the newest row, and has stopped, or their time is over since {until}")]
    Late { user: String, room: String, until: SimTime },
}

/// The times for which a user types in a room.
#[derive(Debug, Default)]
struct Typist {
    /// The time of the last request.
    since: SimTime,
    /// The time until which the user must be typing.
    must_until: SimTime,
    /// The time until which the user may be typing.
    may_until: SimTime,
    is_reported: bool,
}

/// Checks the typing writer's rows against the requests of users.
#[derive(Debug)]
pub struct TypingAsSet {
    writer: Option<InstanceName>,
    /// The time since which the writer's process runs its timers; none if it does not.
    runs_since: Option<SimTime>,
    /// The time at which the writer's last process ended.
    ended: SimTime,
    typists: BTreeMap<(String, String), Typist>,
    /// The users in the newest row of each room.
    rows: BTreeMap<String, BTreeSet<String>>,
    checked: SimTime,
    judged: u64,
}

impl TypingAsSet {
    fn is_writer(&self, instance: &InstanceName) -> bool {
        self.writer.as_ref() == Some(instance)
    }

    fn writer_ended(&mut self, at: SimTime) {
        self.runs_since = None;
        self.ended = at;
        self.rows.clear();
        for typist in self.typists.values_mut() {
            typist.must_until = SimTime(0);
        }
    }

    fn asked(&mut self, at: SimTime, room: &str, user: &str) {
        let typist = self.typists.entry((room.to_owned(), user.to_owned())).or_default();
        typist.may_until = SimTime(at.0 + UNANSWERED_MS);
    }

    fn set(&mut self, at: SimTime, (room, user): (&str, &str), timeout_ms: Option<u64>, after_ms: u64) {
        let began = SimTime(at.0.saturating_sub(after_ms));
        let has_ended = after_ms > 0 && began <= self.ended;
        let typist = self.typists.entry((room.to_owned(), user.to_owned())).or_default();
        let timeout_ms = timeout_ms.unwrap_or(0);
        let must_until = if has_ended || timeout_ms == 0 { SimTime(0) } else { SimTime(began.0 + timeout_ms) };
        *typist = Typist { since: at, must_until, may_until: SimTime(at.0 + timeout_ms), is_reported: false };
    }

    fn changed(&mut self, at: SimTime, token: Token, row: &TypingRow) -> Result<(), Violation> {
        self.judged += 1;
        let TypingRow { room_id, user_ids } = row;
        let users: BTreeSet<String> = user_ids.iter().cloned().collect();
        self.rows.insert(room_id.clone(), users.clone());
        let runs = self.runs_since.is_some_and(|since| at.ms_since(since) > LATE_MS);
        for user in &users {
            let until =
                self.typists.get(&(room_id.clone(), user.clone())).map_or(SimTime(0), |typist| typist.may_until);
            // A user whose time is just over may be in the row of another one.
            if at.ms_since(until) > LATE_MS && (runs || until == SimTime(0)) {
                return Err(Violation::NotTyping { user: user.clone(), room: room_id.clone(), token, until });
            }
        }
        for ((room, user), typist) in &self.typists {
            if room == room_id && typist.must_until > at && !users.contains(user) {
                let (user, room, until) = (user.clone(), room.clone(), typist.must_until);
                return Err(Violation::StoppedEarly { user, room, token, until });
            }
        }
        Ok(())
    }

    /// Returns a change that has no row.
    fn late(&mut self, at: SimTime) -> Result<(), Violation> {
        if self.runs_since.is_none_or(|since| at.ms_since(since) <= LATE_MS)
            || at.ms_since(self.checked) < CHECK_INTERVAL_MS
        {
            return Ok(());
        }
        self.checked = at;
        for ((room, user), typist) in &mut self.typists {
            let must_be_shown = typist.must_until > at && at.ms_since(typist.since) > LATE_MS;
            let must_be_hidden = at.ms_since(typist.may_until) > LATE_MS;
            if typist.is_reported || !must_be_shown && !must_be_hidden {
                continue;
            }
            let is_shown = self.rows.get(room).is_some_and(|users| users.contains(user));
            if is_shown && must_be_hidden {
                typist.is_reported = true;
                return Err(Violation::Late { user: user.clone(), room: room.clone(), until: typist.may_until });
            }
            if !is_shown && must_be_shown {
                typist.is_reported = true;
                return Err(Violation::NotShown { user: user.clone(), room: room.clone(), since: typist.since });
            }
        }
        Ok(())
    }
}

impl Invariant for TypingAsSet {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = Kind::VARIANTS;

    fn new(topology: &Topology) -> Self {
        let writer = topology.writers().find(|(stream, ..)| stream.as_str() == typing::NAME);
        TypingAsSet {
            writer: writer.map(|(.., writer)| writer.clone()),
            runs_since: None,
            ended: SimTime(0),
            typists: BTreeMap::new(),
            rows: BTreeMap::new(),
            checked: SimTime(0),
            judged: 0,
        }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } if self.is_writer(instance) => {
                self.writer_ended(at);
                self.runs_since = Some(at);
            }
            Observation::Stopped { instance, .. } if self.is_writer(instance) => self.writer_ended(at),
            Observation::AskedToStop { instance, .. } | Observation::Frozen { instance }
                if self.is_writer(instance) =>
            {
                self.runs_since = None;
            }
            Observation::Thawed { instance } if self.is_writer(instance) => self.runs_since = Some(at),
            Observation::TypingAsked { room_id, user_id } => self.asked(at, room_id, user_id),
            Observation::TypingSet { room_id, user_id, timeout_ms, after_ms } => {
                self.set(at, (room_id, user_id), *timeout_ms, *after_ms);
            }
            Observation::Changed { stream, token, row: Row::Typing(row), .. } if stream.as_str() == typing::NAME => {
                return self.changed(at, *token, row);
            }
            _ => {}
        }
        self.late(at)
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up;
    use super::*;
    use crate::invariant::Alone;
    use crate::violation::kind;
    use squall_protocol::Delivery;

    const ROOM: &str = "!room";
    const USER: &str = "@a";
    const NOTHING: [&str; 0] = [];

    struct Story {
        judge: Alone<TypingAsSet>,
        verdicts: Vec<String>,
    }

    impl Story {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()]).with_stream("typing", Delivery::Memory, ["master".into()]);
            let mut story = Story { judge: Alone::<TypingAsSet>::new(&topology), verdicts: Vec::new() };
            story.see(0, Observation::Started { instance: "master".into(), boot: 1 });
            story
        }

        fn see(&mut self, at: u64, observation: Observation) {
            let verdict = self.judge.observe(SimTime(at), &observation);
            self.verdicts.extend(verdict.is_err().then(|| kind(&verdict)));
        }

        fn set(&mut self, at: u64, timeout_ms: Option<u64>, after_ms: u64) {
            let (room_id, user_id) = (ROOM.into(), USER.into());
            self.see(at, Observation::TypingSet { room_id, user_id, timeout_ms, after_ms });
        }

        fn row(&mut self, at: u64, users: &[&str]) {
            let (stream, writer, row) = ("typing".into(), "master".into(), made_up::typing(ROOM, users));
            self.see(at, Observation::Changed { stream, writer, boot: 1, token: Token(1), row });
        }

        fn pass(&mut self, at: u64) {
            self.see(at, Observation::Calm);
        }
    }

    #[test]
    fn a_user_types_until_the_time_out_of_their_last_request() {
        for (row_at, verdict) in [(22_000, &NOTHING[..]), (20_000, &["stopped_early"]), (15_000, &["stopped_early"])] {
            let mut story = Story::new();
            story.set(10_000, Some(5_000), 0);
            story.row(10_000, &[USER]);
            story.set(12_000, Some(10_000), 0);
            story.row(row_at, &[]);
            assert_eq!(story.verdicts, verdict, "{row_at}");
        }
    }

    #[test]
    fn a_user_who_has_stopped_is_in_no_row_soon_after() {
        let mut story = Story::new();
        story.set(10_000, Some(60_000), 0);
        story.row(10_000, &[USER]);
        story.set(12_000, None, 0);
        story.row(12_000, &[USER]);
        assert_eq!(story.verdicts, NOTHING);
        story.row(16_000, &[USER]);
        assert_eq!(story.verdicts, ["not_typing"]);
        story.row(16_000, &["@stranger"]);
        assert_eq!(story.verdicts, ["not_typing"; 2]);
    }

    #[test]
    fn a_change_without_a_row_is_found() {
        let mut story = Story::new();
        story.set(10_000, Some(60_000), 0);
        story.pass(13_000);
        assert_eq!(story.verdicts, NOTHING);
        story.pass(13_500);
        assert_eq!(story.verdicts, ["not_shown"]);
        story.row(14_000, &[USER]);
        story.set(15_000, Some(1_000), 0);
        story.pass(19_000);
        story.pass(19_500);
        assert_eq!(story.verdicts, ["not_shown", "late"]);
    }

    #[test]
    fn a_frozen_or_stopping_writer_runs_no_timers() {
        for (happens, verdict) in [
            (Observation::Frozen { instance: "master".into() }, &NOTHING[..]),
            (Observation::AskedToStop { instance: "master".into(), boot: 1 }, &NOTHING),
            (Observation::Frozen { instance: "worker".into() }, &["late"]),
        ] {
            let mut story = Story::new();
            story.set(10_000, Some(5_000), 0);
            story.row(10_000, &[USER]);
            story.see(12_000, happens);
            story.pass(30_000);
            story.see(31_000, Observation::Thawed { instance: "worker".into() });
            assert_eq!(story.verdicts, verdict);
        }
    }

    #[test]
    fn typing_ends_with_the_process_of_the_writer() {
        let mut story = Story::new();
        story.set(10_000, Some(60_000), 0);
        story.row(10_000, &[USER]);
        story.see(20_000, Observation::Stopped { instance: "master".into(), boot: 1 });
        story.see(21_000, Observation::Started { instance: "master".into(), boot: 2 });
        story.pass(40_000);
        // The answer to a request that the process before has done.
        story.set(41_000, Some(60_000), 25_000);
        story.pass(50_000);
        assert_eq!(story.verdicts, NOTHING);
    }

    #[test]
    fn a_request_through_another_instance_takes_effect_before_its_answer() {
        let mut story = Story::new();
        let (room_id, user_id) = (ROOM.into(), USER.into());
        story.see(10_000, Observation::TypingAsked { room_id, user_id });
        story.row(15_000, &[USER]);
        story.set(20_000, Some(60_000), 10_000);
        assert_eq!(story.verdicts, NOTHING);
        story.row(69_000, &[]);
        assert_eq!(story.verdicts, ["stopped_early"]);
        story.row(71_000, &[]);
        assert_eq!(story.verdicts.len(), 1);
    }
}
