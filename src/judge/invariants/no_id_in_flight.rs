//! No id stays in flight.
//!
//! An id is in flight from when it is taken until its row is committed or given up, and holds its writer's position back
//! for so long. When nothing runs any more none is: each writer announces a position that has reached the highest row of
//! the stream, whoever wrote it. An id that was taken by a request that was dropped, and registered by nobody, pins its
//! writer for ever, and with it every token that clients are given (Synapse #19800); a writer that is idle and stays at its
//! own last row does the same (Synapse #8499).
//!
//! No false alarm: it is judged at the end of a calm that is longer than any transaction, heartbeat and reconnection, and
//! until then it is only pending. Ids above the last row may be in flight unseen; they hold nothing back that is there. A
//! stream that is broken has nobody to announce it. A process that has announced nothing has nobody connected to it: that
//! is pending, and no violation of this (it was one at first, and a network on which nobody ever met was told of ids).

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::judge::observation::{Line, Moment, Observation};
use crate::judge::pending::{Lack, Pending};
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::Promise;

/// Judges what writers announce when all is calm.
pub struct NoIdInFlight {
    topology: Topology,
    /// What each writer's process has announced last, on any connection.
    announced: BTreeMap<(StreamName, InstanceName), Token>,
    /// The highest row of each stream.
    highest: BTreeMap<StreamName, Token>,
    broken: BTreeSet<StreamName>,
    judged: u64,
}

impl NoIdInFlight {
    /// Knows from `topology` who writes what.
    pub fn new(topology: &Topology) -> Self {
        let (announced, highest, broken) = Default::default();
        NoIdInFlight { topology: topology.clone(), announced, highest, broken, judged: 0 }
    }

    /// Every writer that does not announce what it must, with what it does announce and the highest row.
    fn behind(&self) -> impl Iterator<Item = (&StreamName, &InstanceName, Option<Token>, Token)> {
        let whole = self.topology.writers().filter(|(stream, ..)| !self.broken.contains(*stream));
        let in_database = whole.filter(|(_, promise, _)| *promise != Promise::Memory);
        in_database.filter_map(|(stream, _, writer)| {
            let highest = *self.highest.get(stream)?;
            let announced = self.announced.get(&(stream.clone(), writer.clone())).copied();
            (announced < Some(highest)).then_some((stream, writer, announced, highest))
        })
    }
}

impl Invariant for NoIdInFlight {
    fn name(&self) -> &'static str {
        "no_id_in_flight"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } => self.announced.retain(|(_, writer), _| writer != instance),
            Observation::StreamBroken { stream } => {
                self.broken.insert(stream.clone());
            }
            Observation::Committed { stream, token, .. } => {
                let highest = self.highest.entry(stream.clone()).or_insert(*token);
                *highest = (*token).max(*highest);
            }
            Observation::Wrote {
                line:
                    Line::Rdata { stream, writer, token: Some(token) } | Line::Position { stream, writer, new: token, .. },
                ..
            } => {
                self.judged += 1;
                self.announced.insert((stream.clone(), writer.clone()), *token);
            }
            Observation::CalmOver => {
                if let Some((stream, writer, announced, highest)) =
                    self.behind().find(|(_, _, announced, _)| announced.is_some())
                {
                    let (stream, writer) = (stream.clone(), writer.clone());
                    return Err(Violation::Wire(WireViolation::StillInFlight { stream, writer, announced, highest }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn pending(&self) -> Vec<Pending> {
        let pending = self.behind().map(|(stream, writer, announced, expected)| {
            let position = announced.unwrap_or_default();
            Pending { feed: Feed::new(writer, stream, writer), what: Lack::Position { position, expected } }
        });
        pending.collect()
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::observation::Side;
    use crate::streams::{AccountDataRow, Row};

    fn announced(writer: &str, token: i64) -> Observation {
        let (stream, token) = ("events".into(), Token(token));
        let line = Line::Position { stream, writer: writer.into(), prev: token, new: token };
        Observation::Wrote { instance: writer.into(), attempt: 1, side: Side::Server, line }
    }

    fn committed(token: i64) -> Observation {
        let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
        Observation::Committed { stream: "events".into(), writer: "a".into(), token: Token(token), row }
    }

    /// Who is behind after `story`, and whether that is violated when the calm is over.
    fn behind(story: &[Observation]) -> (Vec<String>, bool) {
        let topology = Topology::new([]).with_stream("events", Promise::Log, ["a".into(), "b".into()]);
        let mut judge = NoIdInFlight::new(&topology);
        story.iter().for_each(|observation| judge.observe(Moment(0), observation).unwrap());
        let pending = judge.pending().iter().map(|pending| pending.feed.writer.to_string()).collect();
        (pending, judge.observe(Moment(1), &Observation::CalmOver).is_err())
    }

    #[test]
    fn every_writer_announces_the_highest_row_whoever_wrote_it() {
        assert_eq!(behind(&[committed(5), announced("a", 5), announced("b", 7)]), (vec![], false));
        assert_eq!(behind(&[committed(5), announced("a", 5), announced("b", 4)]), (vec!["b".to_owned()], true));
        assert_eq!(behind(&[]), (vec![], false), "there is nothing to announce");
    }

    #[test]
    fn a_new_process_announces_anew() {
        let started = Observation::Started { instance: "b".into(), boot: 2 };
        let mut story = vec![committed(5), announced("a", 5), announced("b", 7), started];
        assert_eq!(behind(&story), (vec!["b".to_owned()], false), "nobody is connected to it");
        story.push(announced("b", 4));
        assert_eq!(behind(&story), (vec!["b".to_owned()], true));
    }

    #[test]
    fn a_broken_stream_is_announced_by_nobody() {
        assert_eq!(behind(&[committed(5), Observation::StreamBroken { stream: "events".into() }]), (vec![], false));
    }
}
