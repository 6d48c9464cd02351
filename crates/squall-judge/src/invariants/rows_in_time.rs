//! Rows arrive in time.
//!
//! A committed row reaches every connected follower at once. A writer that misses a wake-up, skips an announcement, or
//! does not arm a timer again loses nothing: its next heartbeat, seconds later, makes every follower catch up. So nothing
//! else notices, and users wait. Synapse's streamer needed another poke to begin (#7566) and stopped for good after an
//! error (#3137); what is healed by the next heartbeat was never even reported. So on a sound connection the follower's
//! position reaches a committed row within [`Topology::in_time_ms`], which is far less than the interval of heartbeats.
//!
//! No false alarm: a row is judged only if the writer, the follower and the broker are sound from before its commit until
//! its deadline, and if the follower had all earlier rows of that writer. The writer must have announced a position on the
//! present connection since they are sound: a connection that is dead at one end does not count. The bound has room for
//! ids that were allocated earlier and are committed later, for transactions that are rolled back and run again, and for
//! delayed polls.

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;
use strum::VariantArray;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Follower, Followers, Instance, Source, Stream, Table};
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Token;

/// A row that is late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A committed row has not reached a connected follower in time.
    #[error(
        "{follower}: token {token} was committed at {committed}, and has not arrived {within_ms} ms later, \
         on a sound connection"
    )]
    Late {
        #[serde(flatten)]
        follower: FollowerKey,
        token: Token,
        committed: SimTime,
        within_ms: u64,
    },
}

/// Checks the time between each commit and its arrival.
pub struct RowsInTime {
    within_ms: u64,
    /// The highest committed token of each writer.
    highest: Table<Source, Token>,
    followers: Followers<Progress>,
    /// The rows that are due, in order of their deadlines.
    due: VecDeque<Due>,
    broken: BTreeSet<Stream>,
    judged: u64,
}

/// The progress of a follower.
#[derive(Debug, Default)]
struct Progress {
    position: Token,
    /// The connection on which the writer last announced a position, and the time.
    announced: Option<(u64, SimTime)>,
    /// The time since which the follower is in step: it has had every row, on a sound connection.
    in_step_since: Option<SimTime>,
}

impl Progress {
    /// Returns true if the follower has been in step for as long as its path has been sound.
    fn is_in_step(&self, sound_since: Option<SimTime>) -> bool {
        sound_since.is_some_and(|sound| self.in_step_since.is_some_and(|in_step| sound <= in_step))
    }
}

/// A committed row, and a follower that has to get it.
struct Due {
    follower: Follower,
    token: Token,
    committed: SimTime,
}

impl RowsInTime {
    /// Makes a row of `source` due at every follower that is in step.
    fn committed(&mut self, at: SimTime, source: Source, token: Token, scene: &Scene) {
        let highest = self.highest.or_default(source);
        *highest = token.max(*highest);
        if self.broken.contains(&scene.names.stream_of(source)) {
            return;
        }
        let writer = scene.names.writer_of(source);
        for (instance, progress) in self.followers.of_mut(source) {
            if progress.in_step_since.is_none() || token <= progress.position {
                continue;
            }
            if progress.is_in_step(scene.sound_since(at, instance, writer)) {
                self.due.push_back(Due { follower: Follower { source, instance }, token, committed: at });
            } else {
                progress.in_step_since = None;
            }
        }
    }

    /// Records a position. A follower is in step if it has every row, and a sound connection that is known to work.
    fn moved(&mut self, at: SimTime, follower: Follower, position: Token, scene: &Scene) {
        let sound_since = scene.sound_since(at, follower.instance, scene.names.writer_of(follower.source));
        let highest = self.highest.get(follower.source).copied().unwrap_or_default();
        let progress = self.followers.or_default(follower);
        progress.position = position;
        if progress.is_in_step(sound_since) {
            return;
        }
        let announced = progress.announced.map(|(_, announced)| announced);
        let works = sound_since.is_some_and(|sound| announced.is_some_and(|announced| sound <= announced));
        progress.in_step_since = (works && highest <= position).then_some(at);
    }

    /// Returns the first row that should have arrived before `at`, and has not.
    fn overdue(&mut self, at: SimTime, scene: &Scene) -> Option<Violation> {
        let within_ms = self.within_ms;
        while self.due.front().is_some_and(|due| within_ms < at.ms_since(due.committed)) {
            let Some(Due { follower, token, committed }) = self.due.pop_front() else { break };
            let sound_since = scene.sound_since(at, follower.instance, scene.names.writer_of(follower.source));
            let is_broken = self.broken.contains(&scene.names.stream_of(follower.source));
            let Some(progress) = self.followers.get_mut(follower) else { continue };
            if is_broken || !progress.is_in_step(sound_since) || committed < progress.in_step_since.unwrap_or(at) {
                continue;
            }
            let is_late = progress.position < token;
            if is_late {
                // The rows after it are late for the same reason.
                progress.in_step_since = None;
            }
            self.judged += 1;
            if is_late {
                return Some(Violation::Late { follower: scene.names.key_of(follower), token, committed, within_ms });
            }
        }
        None
    }

    /// Forgets what was known of followers that match.
    fn out_of_step(&mut self, matches: impl Fn(Instance, &Progress) -> bool) {
        for (follower, progress) in self.followers.iter_mut() {
            if matches(follower.instance, progress) {
                progress.announced = None;
                progress.in_step_since = None;
            }
        }
    }
}

impl Invariant for RowsInTime {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = Kind::VARIANTS;

    fn new(topology: &Topology) -> Self {
        RowsInTime {
            within_ms: topology.in_time_ms(),
            highest: Table::default(),
            followers: Followers::default(),
            due: VecDeque::new(),
            broken: BTreeSet::new(),
            judged: 0,
        }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        let overdue = self.overdue(at, scene);
        match observation {
            Observation::Committed { token, .. } | Observation::Changed { token, .. } => {
                self.committed(at, scene.source(), *token, scene);
            }
            Observation::Following { position, .. }
            | Observation::Applied { token: position, .. }
            | Observation::Positioned { position, .. }
            | Observation::Reset { position, .. } => self.moved(at, scene.follower(), *position, scene),
            Observation::Announced { attempt, .. } => {
                let progress = self.followers.or_default(scene.follower());
                if progress.announced.is_some_and(|(on, _)| on != *attempt) {
                    progress.in_step_since = None;
                }
                progress.announced = Some((*attempt, at));
            }
            Observation::GivenUp { attempt, .. } | Observation::Closed { attempt, .. } => {
                self.out_of_step(|_, progress| progress.announced.is_some_and(|(on, _)| on == *attempt));
            }
            Observation::Started { .. } | Observation::Stopped { .. } => {
                self.out_of_step(|instance, _| instance == scene.instance());
            }
            Observation::StreamBroken { .. } => drop(self.broken.insert(scene.stream())),
            _ => {}
        }
        overdue.map_or(Ok(()), Err)
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::event;
    use super::*;
    use crate::invariant::Alone;
    use squall_protocol::Delivery;
    use squall_protocol::InstanceName;

    const WITHIN_MS: u64 = 1_000;
    /// A time at which everything has settled.
    const SOUND: u64 = 20_000;

    fn committed(token: i64) -> Observation {
        let (stream, writer) = ("events".into(), "writer".into());
        Observation::Committed { stream, writer, token: Token(token), row: event("$e") }
    }

    fn positioned(token: i64) -> Observation {
        let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
        Observation::Positioned { instance, stream, writer, position: Token(token) }
    }

    fn announced(attempt: u64) -> Observation {
        let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
        let (prev, position) = (Token(1), Token(1));
        Observation::Announced { instance, attempt, stream, writer, prev, position }
    }

    fn fault(hosts: &[&str]) -> [Observation; 2] {
        let hosts: Vec<InstanceName> = hosts.iter().map(|host| (*host).into()).collect();
        [Observation::FaultBegan { hosts: hosts.clone() }, Observation::FaultEnded { hosts, lingers_ms: 0 }]
    }

    fn pong() -> Observation {
        Observation::Ponged { instance: "worker".into(), attempt: 1 }
    }

    /// Tells the story of a follower in step, and then the rest of it.
    fn judge(rest: &[(u64, Observation)]) -> (Result<(), Violation>, u64) {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Delivery::Log, ["writer".into()])
            .with_in_time_ms(WITHIN_MS);
        let mut invariant = Alone::<RowsInTime>::new(&topology);
        let begin = [
            (0, Observation::Started { instance: "writer".into(), boot: 1 }),
            (0, Observation::Started { instance: "worker".into(), boot: 1 }),
            (100, committed(1)),
            (SOUND, announced(1)),
            (SOUND, positioned(1)),
        ];
        let mut result = Ok(());
        for (at, observation) in begin.iter().chain(rest) {
            result = result.and(invariant.observe(SimTime(*at), observation));
        }
        (result, invariant.exercised())
    }

    #[test]
    fn a_row_is_late_if_it_has_not_arrived_by_its_deadline() {
        let at = SOUND + 500;
        assert_eq!(judge(&[(at, committed(2)), (at + WITHIN_MS, positioned(2)), (at + 2_000, pong())]), (Ok(()), 1));
        assert_eq!(judge(&[(at, committed(2)), (at + WITHIN_MS, pong())]), (Ok(()), 0), "not due yet");
        let (late, judged) = judge(&[(at, committed(2)), (at + WITHIN_MS + 1, positioned(2))]);
        let text = late.unwrap_err().to_string();
        assert_eq!(judged, 1);
        assert!(text.starts_with("events of writer on worker: token 2 was committed at 20.500 s"), "{text}");
    }

    #[test]
    fn a_row_is_reported_once_and_the_follower_is_judged_again_once_it_is_in_step() {
        let at = SOUND + 500;
        let later = at + 10_000;
        let (late, judged) = judge(&[
            (at, committed(2)),
            (at, committed(3)),
            (at + 2_000, pong()),
            (at + 2_001, pong()),
            (at + 3_000, positioned(3)),
            (later, committed(4)),
            (later + 500, positioned(4)),
            (later + 2_000, pong()),
        ]);
        assert!(matches!(late, Err(Violation::Late { token: Token(2), .. })), "{late:?}");
        assert_eq!(judged, 2);
    }

    #[test]
    fn nothing_is_due_from_a_disturbed_host_or_soon_afterwards() {
        let late = |disturbed: &[&str], after_ms| {
            let [began, ended] = fault(disturbed);
            let at = SOUND + 2_000 + after_ms;
            judge(&[
                (SOUND + 1_000, began),
                (SOUND + 2_000, ended),
                (at, announced(1)),
                (at, positioned(1)),
                (at, committed(2)),
                (at + 2_000, pong()),
            ])
            .0
            .is_err()
        };
        for host in ["writer", "worker", "broker"] {
            assert!(!late(&[host], 4_999), "{host}");
            assert!(late(&[host], 5_000), "{host}");
        }
        assert!(late(&["elsewhere"], 0));
    }

    #[test]
    fn a_fault_between_the_commit_and_the_deadline_excuses_the_delay() {
        let [began, _] = fault(&["writer"]);
        assert_eq!(judge(&[(SOUND, committed(2)), (SOUND + 900, began), (SOUND + 2_000, pong())]), (Ok(()), 0));
    }

    #[test]
    fn a_connection_counts_once_it_has_brought_a_position() {
        let (instance, attempt) = ("worker".into(), 1);
        let closed = Observation::Closed { instance, attempt };
        let later = SOUND + 1_000;
        let quiet = [(SOUND, closed.clone()), (later, positioned(1)), (later, committed(2)), (later + 2_000, pong())];
        assert_eq!(judge(&quiet), (Ok(()), 0));
        let mut announcing = quiet.to_vec();
        announcing.insert(1, (SOUND, announced(2)));
        assert!(judge(&announcing).0.is_err());
    }

    #[test]
    fn a_follower_that_lacks_earlier_rows_and_a_broken_stream_are_not_judged() {
        let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
        let behind = Observation::Reset { instance, stream, writer, position: Token(0) };
        let started = Observation::Started { instance: "worker".into(), boot: 2 };
        let later = SOUND + 10_000;
        let story =
            [(SOUND, started), (later, announced(2)), (later, behind), (later, committed(2)), (later + 2_000, pong())];
        assert_eq!(judge(&story), (Ok(()), 0));
        let broken = Observation::StreamBroken { stream: "events".into() };
        assert_eq!(judge(&[(SOUND, committed(2)), (SOUND, broken), (SOUND + 2_000, pong())]), (Ok(()), 0));
    }
}
