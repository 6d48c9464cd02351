//! Amplification is bounded.
//!
//! Every line has a cause: a committed row, an action of a user, a line that was read, a heartbeat that was due. None of
//! them causes more than a few lines on one connection. Any number of lines follows from a `REMOTE_SERVER_UP` that a bus
//! echoes to its sender, which sends it again (Synapse #7334), from a `USER_SYNC` that is passed back to its senders
//! (#7318), and from the rows of a writer that are sent once for every other writer (#8496). So on one connection
//!
//! - each row is sent once, in order, and none at or below a position that was announced: followers have fetched it;
//! - greetings and `REPLICATE` come once;
//! - a command that is relayed to every instance comes no more often than an instance has begun to send it;
//! - everything else is bounded by the time that has passed and by the actions of users.
//!
//! No false alarm: each bound is a multiple of the need of heartbeats and pings, signs of life, and the actions of users,
//! counted from the connection attempt. A line counts when the kernel has it, which is later than its cause. Streams in
//! memory start again with their writers, but so do connections. At a broker every instance reads each `REPLICATE`, and
//! cannot know if the presence writer sent it because it lacks the syncing users; so each of them makes every instance
//! announce its users again, under a new id, at most once a second. With them it clears the earlier ids that the presence
//! writer may still know. A user who is between two requests at that moment is announced three times: the end of the sync,
//! the next sync, and then again like all users. A bound of one for each `REPLICATE` was wrong (seed 1002572 of `redis`).
//! A bound of 100 ids and one a second was wrong too: 119 ids were cleared on a connection of 18 s, each of them for a cause
//! (seed 1000037 of `redis_swarm`).

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Source, Stream, Table};
use crate::observation::{Kind, Line, Observation, Role, SimTime};
use crate::scene::Scene;
use crate::topology::{SUBSCRIPTION, Topology};
use squall_protocol::{InstanceName, StreamName, Token};

/// Commands that are relayed to every instance.
const RELAYED: [&str; 2] = ["REMOTE_SERVER_UP", "LOCK_RELEASED"];
/// The most positions of one stream in a second: a heartbeat every five seconds, one a second from an idle writer, and
/// those that follow rows or released ids.
const POSITIONS_A_SECOND: u64 = 10;
/// The most positions of one stream at once.
const POSITIONS_AT_ONCE: u64 = 100;
/// Shortest interval between two announcements of a syncing user, in seconds. A user alone on an instance is announced with
/// every sign of life; more users are announced less often.
const REFRESH_SECS: u64 = 2;
/// The most announcements of a syncing user that follow from a request to announce all users again.
const ANNOUNCED_A_REQUEST: u64 = 3;
/// The most ids that an instance may clear each time, besides one for each of its connections.
const IDS_CLEARED: u64 = 30;

/// More lines than causes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A row was sent a second time on one connection, after a later one, or after a position that covers it.
    #[error("{instance} sent token {token} of {stream} of {writer} after {before} on the same connection")]
    SaidAgain { instance: InstanceName, stream: StreamName, writer: InstanceName, token: Token, before: Token },
    /// More lines were written on a connection than can have had a cause.
    #[error("{instance}, a {role}, wrote {said} {command} lines on one connection, where at most {caused} had a cause")]
    TooMuchSaid { instance: InstanceName, role: Role, command: &'static str, said: u64, caused: u64 },
}

/// Checks the number of lines on each connection.
#[derive(Debug, Default)]
pub struct AmplificationBounded {
    /// The time of each connection attempt.
    attempted: BTreeMap<u64, SimTime>,
    connections: BTreeMap<(u64, Role), Lines>,
    /// Number of syncs that began or ended, by instance.
    syncs: BTreeMap<InstanceName, u64>,
    /// Number of connection attempts, by instance. Each may take a new id, and clear the earlier ones.
    attempts: BTreeMap<InstanceName, u64>,
    /// Number of subscriptions at a broker, by instance. Each of them sends `REPLICATE` once.
    subscriptions: BTreeMap<InstanceName, u64>,
    /// Number of times that an instance began to send a relayed command.
    begun: BTreeMap<&'static str, u64>,
    judged: u64,
}

/// The lines that one end of a connection has written.
#[derive(Debug, Default)]
struct Lines {
    commands: BTreeMap<&'static str, u64>,
    positions: Table<Stream, u64>,
    /// The last token whose rows were sent, or the last position that was announced.
    sent: Table<Source, Token>,
}

impl AmplificationBounded {
    /// Returns the number of requests to announce all users again that may have been read on such a connection.
    fn requests(&self, role: Role) -> u64 {
        if role == Role::Publisher { self.subscriptions.values().sum() } else { 0 }
    }

    /// Returns the most lines of this kind that can have had a cause.
    fn caused(&self, instance: &InstanceName, role: Role, line: &Line, passed_secs: u64) -> u64 {
        match line {
            Line::Other("REPLICATE") if role == Role::Publisher => {
                self.subscriptions.get(instance).copied().unwrap_or(0)
            }
            Line::Position { .. } => POSITIONS_AT_ONCE + POSITIONS_A_SECOND * passed_secs,
            Line::Rdata { .. } | Line::Nonsense => u64::MAX,
            Line::Other("SERVER" | "NAME" | "REPLICATE" | "ERROR") => 1,
            Line::Other(relayed) if RELAYED.contains(relayed) => self.begun.get(relayed).copied().unwrap_or(0),
            Line::Other("USER_SYNC") => {
                let syncs = self.syncs.get(instance).copied().unwrap_or(0);
                syncs * (2 + passed_secs / REFRESH_SECS + ANNOUNCED_A_REQUEST * self.requests(role))
            }
            Line::Other("CLEAR_USER_SYNC") => {
                let connections = self.attempts.get(instance).copied().unwrap_or(0);
                (IDS_CLEARED + connections) * (1 + self.requests(role).min(passed_secs))
            }
            // Pings, and commands that the storm does not use.
            Line::Other(_) => 100 + passed_secs,
        }
    }
}

impl Invariant for AmplificationBounded {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] =
        &[Kind::Began, Kind::Connecting, Kind::Failed, Kind::Wrote, Kind::Closed, Kind::SyncBegan, Kind::SyncEnded];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::SyncBegan { instance, .. } | Observation::SyncEnded { instance, .. } => {
                *self.syncs.entry(instance.clone()).or_default() += 1;
            }
            Observation::Began { command, .. } => *self.begun.entry(command).or_default() += 1,
            Observation::Connecting { instance, target, attempt } => {
                self.attempted.insert(*attempt, at);
                *self.attempts.entry(instance.clone()).or_default() += 1;
                if target.as_str() == SUBSCRIPTION {
                    *self.subscriptions.entry(instance.clone()).or_default() += 1;
                }
            }
            Observation::Failed { attempt, .. } => {
                self.attempted.remove(attempt);
            }
            Observation::Closed { attempt, .. } => {
                for role in [Role::Client, Role::Publisher] {
                    self.connections.remove(&(*attempt, role));
                }
            }
            Observation::Wrote { instance, attempt, role, line } => {
                self.judged += 1;
                let since = self.attempted.get(attempt).copied().unwrap_or_default();
                let passed_secs = at.ms_since(since) / 1_000 + 1;
                let lines = self.connections.entry((*attempt, *role)).or_default();
                let count = match line {
                    Line::Rdata { stream, writer, token: Some(token) } => {
                        let before = lines.sent.insert(scene.source(), *token);
                        if let Some(before) = before.filter(|before| token <= before) {
                            let instance = instance.clone();
                            let stream = stream.clone();
                            let writer = writer.clone();
                            return Err(Violation::SaidAgain { instance, stream, writer, token: *token, before });
                        }
                        return Ok(());
                    }
                    Line::Position { new, .. } => {
                        let sent = lines.sent.or_default(scene.source());
                        *sent = (*sent).max(*new);
                        lines.positions.or_default(scene.stream())
                    }
                    _ => lines.commands.entry(line.command()).or_default(),
                };
                *count += 1;
                let said = *count;
                let caused = self.caused(instance, *role, line, passed_secs);
                if said > caused {
                    let instance = instance.clone();
                    let command = line.command();
                    return Err(Violation::TooMuchSaid { instance, role: *role, command, said, caused });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use crate::observation::Device;
    use crate::violation;

    fn wrote(role: Role, line: Line) -> Observation {
        Observation::Wrote { instance: "worker".into(), attempt: 1, role, line }
    }

    fn sent(token: i64) -> Observation {
        let (stream, writer) = ("events".into(), "worker".into());
        wrote(Role::Server, Line::Rdata { stream, writer, token: Some(Token(token)) })
    }

    fn wrote_command(command: &'static str) -> Observation {
        wrote(Role::Client, Line::Other(command))
    }

    fn sync_began() -> Observation {
        let device = Device { user: "@user".into(), device: None };
        Observation::SyncBegan { instance: "worker".into(), boot: 1, device }
    }

    /// The violation of the last observation.
    fn kind(story: &[(u64, Observation)]) -> String {
        let mut judge = Alone::<AmplificationBounded>::default();
        let verdicts: Vec<_> = story.iter().map(|(at, seen)| judge.observe(SimTime(*at), seen)).collect();
        assert!(verdicts[..verdicts.len() - 1].iter().all(Result::is_ok), "{verdicts:?}");
        violation::kind(verdicts.last().unwrap())
    }

    #[test]
    fn each_row_is_sent_once_and_in_order() {
        assert_eq!(kind(&[(0, sent(2)), (0, sent(5))]), "none");
        assert_eq!(kind(&[(0, sent(2)), (0, sent(2))]), "said_again");
        assert_eq!(kind(&[(0, sent(5)), (0, sent(2))]), "said_again");
    }

    #[test]
    fn no_row_is_sent_that_an_announced_position_covers() {
        let announced = |prev, new| {
            let (stream, writer) = ("events".into(), "worker".into());
            (0, wrote(Role::Server, Line::Position { stream, writer, prev: Token(prev), new: Token(new) }))
        };
        assert_eq!(kind(&[announced(3, 3), (0, sent(4)), announced(4, 9), announced(9, 9), (0, sent(10))]), "none");
        assert_eq!(kind(&[announced(3, 4), (0, sent(4))]), "said_again");
        assert_eq!(kind(&[announced(9, 9), announced(3, 3), (0, sent(4))]), "said_again", "a position stays announced");
    }

    #[test]
    fn greetings_and_replicate_come_once() {
        assert_eq!(kind(&[(0, wrote_command("NAME")), (0, wrote_command("REPLICATE"))]), "none");
        assert_eq!(kind(&[(0, wrote_command("REPLICATE")), (9_000, wrote_command("REPLICATE"))]), "too_much_said");
    }

    #[test]
    fn a_relayed_command_comes_no_more_often_than_it_was_begun() {
        let begun = || {
            let (instance, words) = ("worker".into(), "remote".into());
            (0, Observation::Began { instance, command: "REMOTE_SERVER_UP", words })
        };
        let relayed = || (1, wrote_command("REMOTE_SERVER_UP"));
        assert_eq!(kind(&[begun(), relayed(), begun(), relayed()]), "none");
        assert_eq!(kind(&[begun(), relayed(), relayed()]), "too_much_said", "it was echoed and sent again");
        assert_eq!(kind(&[relayed()]), "too_much_said");
    }

    #[test]
    fn users_are_announced_when_they_sync_and_again_after_a_while() {
        let announced = |at| (at, wrote_command("USER_SYNC"));
        let announced = [announced(0), announced(1), announced(2)];
        let began = (0, sync_began());
        assert_eq!(kind(&[began.clone(), announced[0].clone(), announced[1].clone()]), "none");
        assert_eq!(kind(&[std::slice::from_ref(&began), &announced[..]].concat()), "too_much_said");
        assert_eq!(
            kind(&[began, announced[0].clone(), announced[1].clone(), (2_000, wrote_command("USER_SYNC"))]),
            "none"
        );
    }

    /// Seed 1002572 of `redis`.
    #[test]
    fn each_request_may_come_between_two_syncs_of_a_user() {
        let subscribing =
            (0, Observation::Connecting { instance: "other".into(), target: SUBSCRIPTION.into(), attempt: 2 });
        let announced = |count| vec![(0, wrote(Role::Publisher, Line::Other("USER_SYNC"))); count];
        let story = |count| [vec![subscribing.clone(), (0, sync_began())], announced(count)].concat();
        assert_eq!(kind(&story(5)), "none", "two for the sync and three for the request");
        assert_eq!(kind(&story(6)), "too_much_said");
    }

    #[test]
    fn ids_are_cleared_once_for_each_request_and_at_most_every_second() {
        let cleared = |role, at, count| vec![(at, wrote(role, Line::Other("CLEAR_USER_SYNC"))); count];
        let most = usize::try_from(IDS_CLEARED).unwrap();
        assert_eq!(kind(&cleared(Role::Client, 0, most)), "none");
        assert_eq!(kind(&cleared(Role::Client, 0, most + 1)), "too_much_said");
        assert_eq!(kind(&cleared(Role::Client, 9_000, most + 1)), "too_much_said", "time alone is no cause");
        let subscribing = |attempt| {
            let (instance, target) = ("other".into(), SUBSCRIPTION.into());
            (0, Observation::Connecting { instance, target, attempt })
        };
        let requested =
            |count, at| [vec![subscribing(2), subscribing(3)], cleared(Role::Publisher, at, count)].concat();
        assert_eq!(kind(&requested(3 * most, 1_000)), "none");
        assert_eq!(kind(&requested(3 * most + 1, 1_000)), "too_much_said");
        assert_eq!(kind(&requested(2 * most + 1, 0)), "too_much_said", "they were not requested in one second");
    }

    #[test]
    fn positions_come_no_faster_than_heartbeats_and_rows_can_cause_them() {
        let (stream, writer): (StreamName, InstanceName) = ("events".into(), "worker".into());
        let (prev, new) = (Token(1), Token(1));
        let position = wrote(Role::Server, Line::Position { stream, writer, prev, new });
        let most = usize::try_from(POSITIONS_AT_ONCE + POSITIONS_A_SECOND).unwrap();
        assert_eq!(kind(&vec![(0, position.clone()); most]), "none");
        assert_eq!(kind(&vec![(0, position.clone()); most + 1]), "too_much_said");
    }
}
