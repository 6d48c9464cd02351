//! What causes one message causes few.
//!
//! Every line has a cause: a row that was committed, something that a user did, a line that came in, a heartbeat that was
//! due. None of them causes more than a few on one connection. A `REMOTE_SERVER_UP` that a bus echoes to its sender, who
//! says it again (Synapse #7334), a `USER_SYNC` that is passed on to those who said it (#7318), or the rows of a writer that
//! are sent once for every other one (#8496) cause any number. So on one connection
//!
//! - each row is sent once, in order;
//! - greetings and `REPLICATE` come once;
//! - what is passed on to everybody comes no more often than somebody has begun to say it;
//! - everything else is bounded by the time that has passed and by what users have done.
//!
//! No false alarm: each bound is a multiple of what heartbeats and pings need, and as much as signs of life do and twice
//! what users have done, from when the connection was attempted; and what was said on it is counted when the kernel has it, which is later than it was caused. Streams in
//! memory count anew with their writers, but so do connections. At a broker everybody hears each `REPLICATE`, and nobody
//! knows whether it was the presence writer who asks because it has missed who is syncing, so each of them makes everybody
//! tell that again.

use std::collections::BTreeMap;

use super::Invariant;
use crate::judge::observation::{Line, Moment, Observation, Side};
use crate::judge::topology::SUBSCRIPTION;
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;
use crate::protocol::{InstanceName, StreamName, Token};

/// What everybody is told of that somebody has begun to say.
const PASSED_ON: [&str; 2] = ["REMOTE_SERVER_UP", "LOCK_RELEASED"];
/// How many positions of one stream a second may bring: a heartbeat in five, an idle one in one, and those that follow
/// rows, or ids that were given up.
const POSITIONS_A_SECOND: u64 = 10;
/// How many of them there may be at once.
const POSITIONS_AT_ONCE: u64 = 100;
/// After how many seconds a user who syncs may be announced again: at every turn, if they are the only one on an instance
/// that gives signs of life; the more there are, the less often.
const REFRESH_SECS: u64 = 2;

/// Judges how much is said on each connection.
#[derive(Debug, Default)]
pub struct CausesBounded {
    /// When each connection was attempted.
    attempted: BTreeMap<u64, Moment>,
    connections: BTreeMap<(u64, Side), Said>,
    /// How often each instance's users began or ended to sync.
    syncs: BTreeMap<InstanceName, u64>,
    /// How often each instance began to subscribe at a broker: each time it asks for positions once.
    subscriptions: BTreeMap<InstanceName, u64>,
    /// How often somebody began to say what is passed on.
    begun: BTreeMap<&'static str, u64>,
    judged: u64,
}

/// What one end of a connection has said.
#[derive(Debug, Default)]
struct Said {
    commands: BTreeMap<&'static str, u64>,
    positions: BTreeMap<StreamName, u64>,
    /// The last token whose rows were sent.
    sent: BTreeMap<(StreamName, InstanceName), Token>,
}

impl CausesBounded {
    /// How many lines like that can have been caused, at the most.
    fn caused(&self, instance: &InstanceName, side: Side, line: &Line, passed_secs: u64) -> u64 {
        match line {
            Line::Other("REPLICATE") if side == Side::Publisher => {
                self.subscriptions.get(instance).copied().unwrap_or(0)
            }
            Line::Position { .. } => POSITIONS_AT_ONCE + POSITIONS_A_SECOND * passed_secs,
            Line::Rdata { .. } | Line::Nonsense => u64::MAX,
            Line::Other("SERVER" | "NAME" | "REPLICATE" | "ERROR") => 1,
            Line::Other(passed_on) if PASSED_ON.contains(passed_on) => self.begun.get(passed_on).copied().unwrap_or(0),
            Line::Other("USER_SYNC") => {
                let syncs = self.syncs.get(instance).copied().unwrap_or(0);
                let asked = if side == Side::Publisher { self.subscriptions.values().sum() } else { 0 };
                syncs * (2 + passed_secs / REFRESH_SECS + asked)
            }
            // Pings, the ids that are cleared on a new connection, and what the storm does not say.
            Line::Other(_) => 100 + passed_secs,
        }
    }
}

impl Invariant for CausesBounded {
    fn name(&self) -> &'static str {
        "causes_bounded"
    }

    fn observe(&mut self, at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::SyncBegan { instance, .. } | Observation::SyncEnded { instance, .. } => {
                *self.syncs.entry(instance.clone()).or_default() += 1;
            }
            Observation::Began { command } => *self.begun.entry(command).or_default() += 1,
            Observation::Connecting { instance, target, attempt } => {
                self.attempted.insert(*attempt, at);
                if target.as_str() == SUBSCRIPTION {
                    *self.subscriptions.entry(instance.clone()).or_default() += 1;
                }
            }
            Observation::Failed { attempt, .. } => {
                self.attempted.remove(attempt);
            }
            Observation::Closed { attempt, .. } => {
                for side in [Side::Client, Side::Publisher] {
                    self.connections.remove(&(*attempt, side));
                }
            }
            Observation::Wrote { instance, attempt, side, line } => {
                self.judged += 1;
                let since = self.attempted.get(attempt).copied().unwrap_or_default();
                let passed_secs = at.ms_since(since) / 1_000 + 1;
                let said = self.connections.entry((*attempt, *side)).or_default();
                let count = match line {
                    Line::Rdata { stream, writer, token: Some(token) } => {
                        let before = said.sent.insert((stream.clone(), writer.clone()), *token);
                        if let Some(before) = before.filter(|before| token <= before) {
                            let (instance, token) = (instance.clone(), *token);
                            let (stream, writer) = (stream.clone(), writer.clone());
                            let again = WireViolation::SaidAgain { instance, stream, writer, token, before };
                            return Err(Violation::Wire(again));
                        }
                        return Ok(());
                    }
                    Line::Position { stream, .. } => said.positions.entry(stream.clone()).or_default(),
                    _ => said.commands.entry(line.command()).or_default(),
                };
                *count += 1;
                let said = *count;
                let caused = self.caused(instance, *side, line, passed_secs);
                if said > caused {
                    let (instance, side, command) = (instance.clone(), *side, line.command());
                    let too_much = WireViolation::TooMuchSaid { instance, side, command, said, caused };
                    return Err(Violation::Wire(too_much));
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
    use crate::judge::observation::Device;

    fn wrote(side: Side, line: Line) -> Observation {
        Observation::Wrote { instance: "worker".into(), attempt: 1, side, line }
    }

    fn sent(token: i64) -> Observation {
        let (stream, writer) = ("events".into(), "worker".into());
        wrote(Side::Server, Line::Rdata { stream, writer, token: Some(Token(token)) })
    }

    fn said(command: &'static str) -> Observation {
        wrote(Side::Client, Line::Other(command))
    }

    fn sync_began() -> Observation {
        let device = Device { user: "@user".into(), device: None };
        Observation::SyncBegan { instance: "worker".into(), boot: 1, device }
    }

    /// What the last of these violates.
    fn kind(story: &[(u64, Observation)]) -> &'static str {
        let mut judge = CausesBounded::default();
        let verdicts: Vec<_> = story.iter().map(|(at, seen)| judge.observe(Moment(*at), seen)).collect();
        assert!(verdicts[..verdicts.len() - 1].iter().all(Result::is_ok), "{verdicts:?}");
        verdicts.last().unwrap().as_ref().map_or_else(Violation::kind, |()| "none")
    }

    #[test]
    fn each_row_is_sent_once_and_in_order() {
        assert_eq!(kind(&[(0, sent(2)), (0, sent(5))]), "none");
        assert_eq!(kind(&[(0, sent(2)), (0, sent(2))]), "said_again");
        assert_eq!(kind(&[(0, sent(5)), (0, sent(2))]), "said_again");
    }

    #[test]
    fn a_connection_is_greeted_and_asked_for_once() {
        assert_eq!(kind(&[(0, said("NAME")), (0, said("REPLICATE"))]), "none");
        assert_eq!(kind(&[(0, said("REPLICATE")), (9_000, said("REPLICATE"))]), "too_much_said");
    }

    #[test]
    fn what_is_passed_on_was_begun_by_somebody() {
        let begun = || (0, Observation::Began { command: "REMOTE_SERVER_UP" });
        let passed_on = || (1, said("REMOTE_SERVER_UP"));
        assert_eq!(kind(&[begun(), passed_on(), begun(), passed_on()]), "none");
        assert_eq!(kind(&[begun(), passed_on(), passed_on()]), "too_much_said", "it came back and was said again");
        assert_eq!(kind(&[passed_on()]), "too_much_said");
    }

    #[test]
    fn users_are_announced_when_they_sync_and_again_after_a_while() {
        let announced = |at| (at, said("USER_SYNC"));
        let announced = [announced(0), announced(1), announced(2)];
        let began = (0, sync_began());
        assert_eq!(kind(&[began.clone(), announced[0].clone(), announced[1].clone()]), "none");
        assert_eq!(kind(&[std::slice::from_ref(&began), &announced[..]].concat()), "too_much_said");
        assert_eq!(kind(&[began, announced[0].clone(), announced[1].clone(), (2_000, said("USER_SYNC"))]), "none");
    }

    #[test]
    fn positions_come_no_faster_than_anything_can_cause_them() {
        let (stream, writer): (StreamName, InstanceName) = ("events".into(), "worker".into());
        let (prev, new) = (Token(1), Token(1));
        let position = wrote(Side::Server, Line::Position { stream, writer, prev, new });
        let most = usize::try_from(POSITIONS_AT_ONCE + POSITIONS_A_SECOND).unwrap();
        assert_eq!(kind(&vec![(0, position.clone()); most]), "none");
        assert_eq!(kind(&vec![(0, position.clone()); most + 1]), "too_much_said");
    }
}
