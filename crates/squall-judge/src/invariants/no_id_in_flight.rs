//! No id stays in flight.
//!
//! An id is in flight from its allocation until its row is committed or given up. Meanwhile it holds back the position of
//! its writer. When no transaction runs any more, no id is in flight: each writer announces a position at or above the
//! highest row of the stream, from any writer. An id allocated by a request that was dropped, and never released, pins its
//! writer for ever, and with it every token that clients are given (Synapse #19800). An idle writer that stays at its own
//! last row does the same (Synapse #8499).
//!
//! No false alarm: it is judged at the end of a calm that is longer than any transaction, heartbeat and reconnect; until
//! then it is only pending. Ids above the last row may be in flight unseen, and hold back nothing that exists. A broken
//! stream is announced by no instance. A process that has announced nothing has no connection: that is pending, and no
//! violation of this property. (It once was one, on a network where no two instances ever met.) A process without any
//! other instance has no connection for good, and nothing is pending. (It once was, in plans that were shrunk to one host.)

use std::collections::BTreeSet;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Follower, Source, Stream, Table};
use crate::observation::{Kind, Line, Observation, SimTime};
use crate::pending::{Pending, PendingReason};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::Delivery;
use squall_protocol::{InstanceName, StreamName, Token};

/// An id that holds back its writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// Long into the calm, a writer's position is behind the last row of its stream.
    #[error(
        "{writer} announces {} for {stream}, long after {highest} was committed and the storm was over",
        announced_text(.announced)
    )]
    StillInFlight { stream: StreamName, writer: InstanceName, announced: Option<Token>, highest: Token },
}

fn announced_text(announced: &Option<Token>) -> String {
    announced.map_or_else(|| "nothing".to_owned(), |token| token.to_string())
}

/// Checks the last position of every writer at the end of the calm.
#[derive(Default)]
pub struct NoIdInFlight {
    /// The last position that each writer's process has announced, on any connection.
    announced: Table<Source, Token>,
    /// The highest row of each stream.
    highest: Table<Stream, Token>,
    broken: BTreeSet<StreamName>,
    judged: u64,
}

impl NoIdInFlight {
    /// Returns every writer whose position is behind, with that position and the highest row.
    fn behind(&self, scene: &Scene) -> impl Iterator<Item = (Source, Option<Token>, Token)> {
        let whole =
            scene.names.configured().filter(|source| !self.broken.contains(scene.names.stream_name_of(*source)));
        let in_database = whole.filter(|source| scene.names.delivery_of(*source) != Some(Delivery::Memory));
        in_database.filter_map(|source| {
            let highest = *self.highest.get(scene.names.stream_of(source))?;
            let announced = self.announced.get(source).copied();
            (announced < Some(highest)).then_some((source, announced, highest))
        })
    }
}

impl Invariant for NoIdInFlight {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] =
        &[Kind::Started, Kind::Committed, Kind::Wrote, Kind::StreamBroken, Kind::CalmOver];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { .. } => {
                self.announced.retain(|source| scene.names.writer_of(source) != scene.instance());
            }
            Observation::StreamBroken { stream } => {
                self.broken.insert(stream.clone());
            }
            Observation::Committed { token, .. } => {
                let stream = scene.names.stream_of(scene.source());
                let highest = self.highest.get(stream).map_or(*token, |highest| (*token).max(*highest));
                self.highest.insert(stream, highest);
            }
            Observation::Wrote {
                line: Line::Rdata { token: Some(token), .. } | Line::Position { new: token, .. },
                ..
            } => {
                self.judged += 1;
                self.announced.insert(scene.source(), *token);
            }
            Observation::CalmOver => {
                if let Some((source, announced, highest)) =
                    self.behind(scene).find(|(_, announced, _)| announced.is_some())
                {
                    let stream = scene.names.stream_name_of(source).clone();
                    let writer = scene.names.name_of(scene.names.writer_of(source)).clone();
                    return Err(Violation::StillInFlight { stream, writer, announced, highest });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn pending<'a>(&'a self, scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a> {
        let behind = self.behind(scene).filter(|(source, ..)| scene.names.followers_of(*source).next().is_some());
        Box::new(behind.map(|(source, announced, expected)| {
            let position = announced.unwrap_or_default();
            let writer = scene.names.writer_of(source);
            Pending {
                follower: scene.names.key_of(Follower { source, instance: writer }),
                what: PendingReason::Position { position, expected },
            }
        }))
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use crate::observation::Role;
    use squall_protocol::rows::{AccountDataRow, Row};

    fn announced(writer: &str, token: i64) -> Observation {
        let (stream, token) = ("events".into(), Token(token));
        let line = Line::Position { stream, writer: writer.into(), prev: token, new: token };
        Observation::Wrote { instance: writer.into(), attempt: 1, role: Role::Server, line }
    }

    fn committed(token: i64) -> Observation {
        let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
        Observation::Committed { stream: "events".into(), writer: "a".into(), token: Token(token), row }
    }

    /// The writers that are behind after `story`; and true if that is a violation when the calm is over.
    fn behind(story: &[Observation]) -> (Vec<String>, bool) {
        behind_among(&["a", "b"], story)
    }

    /// The same in a deployment of these writers.
    fn behind_among(writers: &[&str], story: &[Observation]) -> (Vec<String>, bool) {
        let writers = writers.iter().map(|name| InstanceName::from(*name));
        let topology = Topology::new([]).with_stream("events", Delivery::Log, writers);
        let mut judge = Alone::<NoIdInFlight>::new(&topology);
        story.iter().for_each(|observation| judge.observe(SimTime(0), observation).unwrap());
        let pending = judge.pending().iter().map(|pending| pending.follower.writer.to_string()).collect();
        (pending, judge.observe(SimTime(1), &Observation::CalmOver).is_err())
    }

    #[test]
    fn every_writer_announces_the_highest_row_of_any_writer() {
        assert_eq!(behind(&[committed(5), announced("a", 5), announced("b", 7)]), (vec![], false));
        assert_eq!(behind(&[committed(5), announced("a", 5), announced("b", 4)]), (vec!["b".to_owned()], true));
        assert_eq!(behind(&[]), (vec![], false), "the stream has no rows");
    }

    #[test]
    fn a_process_without_others_need_not_announce() {
        assert_eq!(behind_among(&["a", "b"], &[committed(5)]), (vec!["a".to_owned(), "b".to_owned()], false));
        assert_eq!(behind_among(&["a"], &[committed(5)]), (vec![], false));
        assert!(behind_among(&["a"], &[committed(5), announced("a", 4)]).1, "it has announced, and too little");
    }

    #[test]
    fn a_new_process_announces_anew() {
        let started = Observation::Started { instance: "b".into(), boot: 2 };
        let mut story = vec![committed(5), announced("a", 5), announced("b", 7), started];
        assert_eq!(behind(&story), (vec!["b".to_owned()], false), "it has no connection");
        story.push(announced("b", 4));
        assert_eq!(behind(&story), (vec!["b".to_owned()], true));
    }

    #[test]
    fn a_broken_stream_need_not_be_announced() {
        assert_eq!(behind(&[committed(5), Observation::StreamBroken { stream: "events".into() }]), (vec![], false));
    }
}
