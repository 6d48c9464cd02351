//! No missed rows.
//!
//! Every row that a writer writes reaches every instance that follows it, as the delivery of its stream promises. See
//! `log`, `keyed` and `memory` for the three promises, the upstream defects behind them, and the reasons why each
//! raises no false alarm. This file takes each observation to the writer that it is about.

mod keyed;
mod log;
mod memory;
mod rows;
mod violation;

use std::collections::{BTreeMap, BTreeSet};

use self::keyed::Keyed;
use self::log::Log;
use self::memory::Memory;
use self::rows::Rows;
pub use self::violation::Violation;
use crate::invariant::Invariant;
use crate::observation::{Observation, SimTime};
use crate::pending::Pending;
use crate::present::Present;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Delivery;
use squall_protocol::{InstanceName, StreamName, Token};

/// Checks the rows that every follower applied against the rows that every writer wrote.
pub struct NoMissedRows {
    topology: Topology,
    rows: BTreeMap<(StreamName, InstanceName), Box<dyn Rows>>,
    /// The streams that cannot be read any more.
    broken: BTreeSet<StreamName>,
    judged: u64,
}

impl NoMissedRows {
    /// Returns the rows of a writer; none if the topology does not have that stream or writer.
    fn rows_of(&mut self, stream: &StreamName, writer: &InstanceName) -> Option<&mut Box<dyn Rows>> {
        self.rows.get_mut(&(stream.clone(), writer.clone()))
    }

    /// Judges a step of the follower `key`.
    fn judge(
        &mut self,
        key: FollowerKey,
        judge: impl FnOnce(&mut dyn Rows, &FollowerKey) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let Some(rows) = self.rows_of(&key.stream, &key.writer) else { return Ok(()) };
        let verdict = judge(rows.as_mut(), &key);
        self.judged += 1;
        verdict
    }

    fn highest(&self, stream: &StreamName) -> Option<Token> {
        let writers = self.rows.iter().filter(|((of, _), _)| of == stream);
        writers.filter_map(|(_, rows)| rows.highest()).max()
    }
}

impl Invariant for NoMissedRows {
    type Violation = Violation;

    fn new(topology: &Topology) -> Self {
        let rows = topology.writers().map(|(stream, delivery, writer)| {
            let rows: Box<dyn Rows> = match delivery {
                Delivery::Log => Box::new(Log::default()),
                Delivery::Keyed => Box::new(Keyed::new(Present::new(stream, topology))),
                Delivery::Memory => Box::new(Memory::default()),
            };
            ((stream.clone(), writer.clone()), rows)
        });
        NoMissedRows { rows: rows.collect(), topology: topology.clone(), broken: BTreeSet::new(), judged: 0 }
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } => {
                for ((_, writer), rows) in &mut self.rows {
                    rows.gone(instance);
                    if writer == instance {
                        rows.begun();
                    }
                }
            }
            Observation::Stopped { instance, .. } => {
                for rows in self.rows.values_mut() {
                    rows.gone(instance);
                }
            }
            Observation::Committed { stream, writer, token, row }
            | Observation::Changed { stream, writer, token, row, .. } => {
                for ((_, of), rows) in self.rows.iter_mut().filter(|((of, _), _)| of == stream) {
                    match of == writer {
                        true => rows.written(*token, row),
                        false => rows.written_by_another(*token, row),
                    }
                }
            }
            Observation::StreamBroken { stream } => {
                self.broken.insert(stream.clone());
            }
            Observation::Removed { stream, writer, token, row } => {
                if let Some(rows) = self.rows_of(stream, writer) {
                    rows.removed(*token, row);
                }
            }
            Observation::Following { instance, stream, writer, position } => {
                if let Some(rows) = self.rows_of(stream, writer) {
                    rows.following(instance, *position);
                }
            }
            Observation::Applied { instance, stream, writer, token, rows: applied } => {
                let key = FollowerKey::new(instance, stream, writer);
                return self.judge(key, |rows, key| rows.applied(key, *token, applied));
            }
            Observation::Positioned { instance, stream, writer, position } => {
                let key = FollowerKey::new(instance, stream, writer);
                return self.judge(key, |rows, key| rows.positioned(key, *position));
            }
            Observation::Reset { instance, stream, writer, position } => {
                let key = FollowerKey::new(instance, stream, writer);
                return self.judge(key, |rows, key| rows.reset(key, *position));
            }
            _ => {}
        }
        Ok(())
    }

    fn pending(&self) -> Vec<Pending> {
        let whole = self.topology.followers().filter(|key| !self.broken.contains(&key.stream));
        let pending = whole.filter_map(|key| {
            let rows = self.rows.get(&(key.stream.clone(), key.writer.clone()))?;
            let what = rows.lack(&key.instance, self.highest(&key.stream))?;
            Some(Pending { follower: key, what })
        });
        pending.collect()
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}
