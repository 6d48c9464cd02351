//! Marks: how often a run came to the situations that matter.
//!
//! A storm that never reaches them proves nothing, however many seeds pass. Every mark is counted from observations,
//! and is there from the beginning, so that one that was never reached can be seen.

use std::collections::BTreeMap;

use super::observation::Observation;
use super::set_up::SetUps;
use super::topology::{Feed, Topology};
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::{EventsRow, Row};

/// An in-memory stream's follower was told that the writer began anew.
const MEMORY_RESET: &str = "memory_reset";
/// A `state-all` row was applied in the place of a room's state rows.
const STATE_ALL_APPLIED: &str = "state_all_applied";
/// A connection was set up.
const SET_UP: &str = "set_up";
/// A position was announced that the follower had not reached: it has to catch up.
const ANNOUNCED_AHEAD: &str = "announced_ahead";
/// A row took effect after one of the same writer and stream with a higher token.
const OUT_OF_ORDER_COMMIT: &str = "out_of_order_commit";
/// Rows took effect when nobody waited for them any more.
const LATE_COMMIT: &str = "late_commit";
/// Rows of an earlier process were refused.
const FENCED_COMMIT: &str = "fenced_commit";
/// Rows took effect, and their writer was told an error.
const LOST_ACKNOWLEDGEMENT: &str = "lost_acknowledgement";

/// Every mark.
const ALL: [&str; 8] = [
    MEMORY_RESET,
    STATE_ALL_APPLIED,
    SET_UP,
    ANNOUNCED_AHEAD,
    OUT_OF_ORDER_COMMIT,
    LATE_COMMIT,
    FENCED_COMMIT,
    LOST_ACKNOWLEDGEMENT,
];

/// Counts marks.
pub(super) struct Marks {
    set_ups: SetUps,
    /// The highest token committed so far.
    committed_upto: BTreeMap<(StreamName, InstanceName), Token>,
    counts: BTreeMap<&'static str, u64>,
}

impl Marks {
    /// No mark reached yet.
    pub fn new(topology: &Topology) -> Self {
        let (set_ups, counts) = (SetUps::new(topology), ALL.map(|mark| (mark, 0)).into());
        Marks { set_ups, committed_upto: BTreeMap::new(), counts }
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
            Observation::Committed { stream, writer, token, .. } => {
                let upto = self.committed_upto.entry((stream.clone(), writer.clone())).or_insert(*token);
                let is_out_of_order = *token < *upto;
                *upto = *token.max(upto);
                if is_out_of_order {
                    self.reach(OUT_OF_ORDER_COMMIT);
                }
            }
            Observation::LateCommit { .. } => self.reach(LATE_COMMIT),
            Observation::Fenced { .. } => self.reach(FENCED_COMMIT),
            Observation::AcknowledgementLost { .. } => self.reach(LOST_ACKNOWLEDGEMENT),
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
