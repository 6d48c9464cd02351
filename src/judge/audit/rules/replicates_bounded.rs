//! REPLICATEs are few.
//!
//! An instance says REPLICATE when it has connected, and all writers answer for all their streams to everybody. One that
//! reconnects in a loop keeps the whole deployment busy: an old Synapse among new ones, which closes its connection at a
//! `POSITION` of a stream that it does not have, said it 59 times a minute for as long as it was there.
//!
//! No false alarm: within [`WINDOW_MS`] every instance that was ever heard of may connect [`CONNECTIONS_MAX`] times, and
//! [`REPLICATES_MIN`] in all are always allowed, because some instances are never named.

use std::collections::{BTreeSet, VecDeque};

use super::Rule;
use crate::judge::audit::{Findings, Heard, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, InstanceName};

/// The stretch of time in which REPLICATEs are counted.
pub const WINDOW_MS: u64 = 60_000;

/// How often an instance may connect in it.
pub const CONNECTIONS_MAX: usize = 2;

/// How many REPLICATEs are no storm, however few instances were heard of.
pub const REPLICATES_MIN: usize = 10;

/// Counts REPLICATEs.
#[derive(Debug, Default)]
pub struct ReplicatesBounded {
    instances: BTreeSet<InstanceName>,
    recent: VecDeque<Moment>,
    judged: u64,
}

impl ReplicatesBounded {
    fn allowed(&self) -> usize {
        (CONNECTIONS_MAX * self.instances.len()).max(REPLICATES_MIN)
    }

    fn heard_of(&mut self, instance: &InstanceName) {
        if !self.instances.contains(instance) {
            self.instances.insert(instance.clone());
        }
    }
}

impl Rule for ReplicatesBounded {
    fn name(&self) -> &'static str {
        "replicates_bounded"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        match heard.said {
            Ok(Command::Rdata(rdata)) => self.heard_of(&rdata.writer),
            Ok(Command::Position(position)) => self.heard_of(&position.writer),
            Ok(Command::FederationAck(ack)) => self.heard_of(&ack.instance),
            Ok(Command::Replicate) => {
                let Some(at) = heard.at else { return };
                self.judged += 1;
                self.recent.push_back(at);
                self.recent.retain(|then| at.ms_since(*then) < WINDOW_MS);
                if self.recent.len() > self.allowed() {
                    let (replicates, instances) = (self.recent.len(), self.instances.len());
                    findings.add(heard.line, Violation::Storm { replicates, within_ms: WINDOW_MS, instances });
                    // What goes on for long is found again in each window.
                    self.recent.clear();
                }
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        // Whoever lost the connection to the broker connects again, and is in his rights.
        self.recent.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found_at;

    fn every(ms: u64, times: u64) -> Vec<(u64, &'static str)> {
        (0..times).map(|ordinal| (ordinal * ms, "REPLICATE")).collect()
    }

    #[test]
    fn a_reconnect_each_second_is_a_storm_for_as_long_as_it_lasts() {
        assert_eq!(found_at(ReplicatesBounded::default(), &every(1_000, 60)).len(), 5);
    }

    #[test]
    fn now_and_then_is_none() {
        assert_eq!(found_at(ReplicatesBounded::default(), &every(6_000, 100)), []);
    }

    #[test]
    fn a_large_deployment_may_start_at_once() {
        let lines: Vec<String> = (0..20).map(|writer| format!("POSITION caches w{writer} 1 1")).collect();
        let mut payloads: Vec<(u64, &str)> = lines.iter().map(|line| (0, &**line)).collect();
        payloads.extend(every(100, 40));
        assert_eq!(found_at(ReplicatesBounded::default(), &payloads), []);
        payloads.push((4_000, "REPLICATE"));
        assert_eq!(found_at(ReplicatesBounded::default(), &payloads).len(), 1);
    }
}
