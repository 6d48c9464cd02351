//! Marks: how often a run came to the situations that matter.
//!
//! A storm that never reaches them proves nothing, however many seeds pass. Every mark is counted from observations,
//! and is there from the beginning, so that one that was never reached can be seen.

use std::collections::BTreeMap;

use super::observation::Observation;
use super::set_up::SetUps;
use super::topology::{Feed, Topology};
use crate::streams::{EventsRow, Row};

/// An in-memory stream's follower was told that the writer began anew.
const MEMORY_RESET: &str = "memory_reset";
/// A `state-all` row was applied in the place of a room's state rows.
const STATE_ALL_APPLIED: &str = "state_all_applied";
/// A connection was set up.
const SET_UP: &str = "set_up";
/// A position was announced that the follower had not reached: it has to catch up.
const ANNOUNCED_AHEAD: &str = "announced_ahead";

/// Counts marks.
pub(super) struct Marks {
    set_ups: SetUps,
    counts: BTreeMap<&'static str, u64>,
}

impl Marks {
    /// No mark reached yet.
    pub fn new(topology: &Topology) -> Self {
        let marks = [MEMORY_RESET, STATE_ALL_APPLIED, SET_UP, ANNOUNCED_AHEAD];
        Marks { set_ups: SetUps::new(topology), counts: marks.map(|mark| (mark, 0)).into() }
    }

    /// How often each mark was reached.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Counts what this observation reaches.
    pub fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Reset { .. } => self.reach(MEMORY_RESET),
            Observation::Applied { rows, .. } if rows.iter().any(is_state_all) => self.reach(STATE_ALL_APPLIED),
            Observation::Announced { instance, stream, writer, position, .. } => {
                let held = self.set_ups.position(&Feed::new(instance, stream, writer));
                if held.is_some_and(|held| held < *position) {
                    self.reach(ANNOUNCED_AHEAD);
                }
            }
            _ => {}
        }
        if self.set_ups.observe(observation).is_some() {
            self.reach(SET_UP);
        }
    }

    fn reach(&mut self, mark: &'static str) {
        *self.counts.entry(mark).or_default() += 1;
    }
}

fn is_state_all(row: &Row) -> bool {
    matches!(row, Row::Events(EventsRow::StateAll(_)))
}
