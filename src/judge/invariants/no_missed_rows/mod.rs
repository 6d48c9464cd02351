//! No missed rows.
//!
//! Whatever a writer wrote reaches every instance that follows it, in the way its stream promises: see [`log`],
//! [`keyed`] and [`memory`] for the three promises. This file only takes each observation to the writer it is about.

mod keyed;
mod log;
mod memory;

use std::collections::{BTreeMap, BTreeSet};

use self::keyed::Keyed;
use self::log::Log;
use self::memory::Memory;
use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::pending::{Lack, Pending};
use crate::judge::present::Present;
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::{Promise, Row};

/// What one writer wrote to one stream, and what each instance has made of it: one implementation per promise.
///
/// A feed given to these is always one of that writer and stream. A follower that has not said where it starts is not
/// judged, only pending.
trait Rows {
    /// The writer began a new process.
    fn begun(&mut self) {}
    /// The writer wrote `row`.
    fn written(&mut self, token: Token, row: &Row);
    /// A row is no longer there.
    fn removed(&mut self, _token: Token, _row: &Row) {}
    /// The highest token written.
    fn highest(&self) -> Option<Token>;
    /// An instance follows from `position` on.
    fn following(&mut self, instance: &InstanceName, position: Token);
    /// An instance is gone, and what it held with it.
    fn gone(&mut self, instance: &InstanceName);
    /// A follower applied the whole of `token`.
    fn applied(&mut self, feed: &Feed, token: Token, rows: &[Row]) -> Result<(), Violation>;
    /// A follower's position moved or was confirmed.
    fn positioned(&mut self, feed: &Feed, position: Token) -> Result<(), Violation>;
    /// A follower dropped all that it had applied.
    fn reset(&mut self, feed: &Feed, position: Token) -> Result<(), Violation>;
    /// What a follower lacks, in a stream whose highest token over all writers is `highest`.
    fn lack(&self, instance: &InstanceName, highest: Option<Token>) -> Option<Lack>;
}

/// Judges what every follower applied against what every writer wrote.
pub struct NoMissedRows {
    topology: Topology,
    rows: BTreeMap<(StreamName, InstanceName), Box<dyn Rows>>,
    /// Streams of which nothing more need come.
    broken: BTreeSet<StreamName>,
    judged: u64,
}

impl NoMissedRows {
    /// Judges every stream of `topology` by its promise.
    pub fn new(topology: &Topology) -> Self {
        let rows = topology.writers().map(|(stream, promise, writer)| {
            let rows: Box<dyn Rows> = match promise {
                Promise::Log => Box::new(Log::default()),
                Promise::Keyed => Box::new(Keyed::new(Present::new(stream, topology))),
                Promise::Memory => Box::new(Memory::default()),
            };
            ((stream.clone(), writer.clone()), rows)
        });
        NoMissedRows { rows: rows.collect(), topology: topology.clone(), broken: BTreeSet::new(), judged: 0 }
    }

    /// A stream or writer that the topology does not have is not judged.
    fn of(&mut self, stream: &StreamName, writer: &InstanceName) -> Option<&mut Box<dyn Rows>> {
        self.rows.get_mut(&(stream.clone(), writer.clone()))
    }

    /// Lets the writer's rows judge something that `feed` did.
    fn judge(
        &mut self,
        feed: Feed,
        judge: impl FnOnce(&mut dyn Rows, &Feed) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let Some(rows) = self.of(&feed.stream, &feed.writer) else { return Ok(()) };
        let verdict = judge(rows.as_mut(), &feed);
        self.judged += 1;
        verdict
    }

    fn highest(&self, stream: &StreamName) -> Option<Token> {
        let writers = self.rows.iter().filter(|((of, _), _)| of == stream);
        writers.filter_map(|(_, rows)| rows.highest()).max()
    }
}

impl Invariant for NoMissedRows {
    fn name(&self) -> &'static str {
        "no_missed_rows"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } => {
                self.rows.values_mut().for_each(|rows| rows.gone(instance));
                let own = self.rows.iter_mut().filter(|((_, writer), _)| writer == instance);
                own.for_each(|(_, rows)| rows.begun());
            }
            Observation::Stopped { instance, .. } => self.rows.values_mut().for_each(|rows| rows.gone(instance)),
            Observation::Committed { stream, writer, token, row }
            | Observation::Changed { stream, writer, token, row, .. } => {
                self.of(stream, writer).into_iter().for_each(|rows| rows.written(*token, row));
            }
            Observation::StreamBroken { stream } => {
                self.broken.insert(stream.clone());
            }
            Observation::Removed { stream, writer, token, row } => {
                if let Some(rows) = self.of(stream, writer) {
                    rows.removed(*token, row);
                }
            }
            Observation::Following { instance, stream, writer, position } => {
                if let Some(rows) = self.of(stream, writer) {
                    rows.following(instance, *position);
                }
            }
            Observation::Applied { instance, stream, writer, token, rows: applied } => {
                let feed = Feed::new(instance, stream, writer);
                return self.judge(feed, |rows, feed| rows.applied(feed, *token, applied));
            }
            Observation::Positioned { instance, stream, writer, position } => {
                let feed = Feed::new(instance, stream, writer);
                return self.judge(feed, |rows, feed| rows.positioned(feed, *position));
            }
            Observation::Reset { instance, stream, writer, position } => {
                let feed = Feed::new(instance, stream, writer);
                return self.judge(feed, |rows, feed| rows.reset(feed, *position));
            }
            _ => {}
        }
        Ok(())
    }

    fn pending(&self) -> Vec<Pending> {
        let whole = self.topology.feeds().filter(|feed| !self.broken.contains(&feed.stream));
        let pending = whole.filter_map(|feed| {
            let rows = self.rows.get(&(feed.stream.clone(), feed.writer.clone()))?;
            let what = rows.lack(&feed.instance, self.highest(&feed.stream))?;
            Some(Pending { feed, what })
        });
        pending.collect()
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}
