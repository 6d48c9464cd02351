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

use std::collections::BTreeSet;

use self::keyed::Keyed;
use self::log::Log;
use self::memory::Memory;
use self::rows::{Place, Rows};
pub use self::violation::Violation;
use crate::invariant::Invariant;
use crate::names::{Names, Source, Stream, Table};
use crate::observation::{Kind, Observation, SimTime};
use crate::pending::Pending;
use crate::present::Present;
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::Delivery;
use squall_protocol::Token;

/// Checks the rows that every follower applied against the rows that every writer wrote.
pub struct NoMissedRows {
    rows: Table<Source, Box<dyn Rows>>,
    /// The streams that cannot be read any more.
    broken: BTreeSet<Stream>,
    judged: u64,
}

impl NoMissedRows {
    /// Judges a step of a follower.
    fn judge(
        &mut self,
        scene: &Scene,
        judge: impl FnOnce(&mut dyn Rows, &Place<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let place = Place { follower: scene.follower(), names: &scene.names };
        let Some(rows) = self.rows.get_mut(place.follower.source) else { return Ok(()) };
        self.judged += 1;
        judge(rows.as_mut(), &place)
    }

    fn highest(&self, stream: Stream, scene: &Scene) -> Option<Token> {
        let rows = scene.names.sources_of(stream).iter().filter_map(|source| self.rows.get(*source));
        rows.filter_map(|rows| rows.highest()).max()
    }
}

impl Invariant for NoMissedRows {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Started,
        Kind::Stopped,
        Kind::Committed,
        Kind::Removed,
        Kind::Changed,
        Kind::Following,
        Kind::Applied,
        Kind::Positioned,
        Kind::Reset,
        Kind::StreamBroken,
    ];

    fn new(topology: &Topology) -> Self {
        let names = Names::new(topology);
        let mut rows: Table<Source, Box<dyn Rows>> = Table::default();
        for source in names.configured() {
            let of_source: Box<dyn Rows> = match names.delivery_of(source) {
                Some(Delivery::Log) => Box::new(Log::default()),
                Some(Delivery::Keyed) => Box::new(Keyed::new(Present::new(&names, source))),
                Some(Delivery::Memory) | None => Box::new(Memory::default()),
            };
            rows.insert(source, of_source);
        }
        NoMissedRows { rows, broken: BTreeSet::new(), judged: 0 }
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { .. } => {
                for (source, rows) in self.rows.iter_mut() {
                    rows.gone(scene.instance());
                    if scene.names.writer_of(source) == scene.instance() {
                        rows.begun();
                    }
                }
            }
            Observation::Stopped { .. } => {
                for (_, rows) in self.rows.iter_mut() {
                    rows.gone(scene.instance());
                }
            }
            Observation::Committed { token, row, .. } | Observation::Changed { token, row, .. } => {
                for source in scene.names.sources_of(scene.stream()) {
                    let Some(rows) = self.rows.get_mut(*source) else { continue };
                    match *source == scene.source() {
                        true => rows.written(*token, row),
                        false => rows.written_by_another(*token, row),
                    }
                }
            }
            Observation::StreamBroken { .. } => {
                self.broken.insert(scene.stream());
            }
            Observation::Removed { token, row, .. } => {
                if let Some(rows) = self.rows.get_mut(scene.source()) {
                    rows.removed(*token, row);
                }
            }
            Observation::Following { position, .. } => {
                if let Some(rows) = self.rows.get_mut(scene.source()) {
                    rows.following(scene.instance(), *position);
                }
            }
            Observation::Applied { token, rows: applied, .. } => {
                return self.judge(scene, |rows, place| rows.applied(place, *token, applied));
            }
            Observation::Positioned { position, .. } => {
                return self.judge(scene, |rows, place| rows.positioned(place, *position));
            }
            Observation::Reset { position, .. } => {
                return self.judge(scene, |rows, place| rows.reset(place, *position));
            }
            _ => {}
        }
        Ok(())
    }

    fn pending<'a>(&'a self, scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a> {
        let whole = scene.names.configured().filter(|source| !self.broken.contains(&scene.names.stream_of(*source)));
        Box::new(whole.flat_map(|source| scene.names.followers_of(source)).filter_map(|follower| {
            let rows = self.rows.get(follower.source)?;
            let highest = self.highest(scene.names.stream_of(follower.source), scene);
            let what = rows.lack(follower.instance, highest)?;
            Some(Pending { follower: scene.names.key_of(follower), what })
        }))
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}
