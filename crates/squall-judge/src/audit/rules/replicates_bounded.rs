//! REPLICATEs are few.
//!
//! An instance sends REPLICATE when it has connected, and every writer answers with the positions of all its streams, to
//! every instance. An instance that reconnects in a loop keeps the whole deployment busy. An old Synapse among new ones,
//! which closes its connection at a `POSITION` of a stream that it does not have, sent 59 REPLICATEs a minute.
//!
//! No false alarm: within [`WINDOW_MS`] every instance that was ever named may connect [`CONNECTIONS_MAX`] times. Some
//! instances are never named, so [`REPLICATES_MIN`] are always allowed.
//!
//! Class: load. Every instance reads and answers each of them.

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName};

/// Length of the window in which REPLICATEs are counted, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;

/// Number of connections that are allowed to each instance within the window.
pub const CONNECTIONS_MAX: usize = 2;

/// Number of REPLICATEs that are always allowed within the window.
pub const REPLICATES_MIN: usize = 10;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// The instances cannot need so many REPLICATEs.
    #[error("{replicates} REPLICATEs came within {within_ms} ms, from {instances} known instances")]
    Storm { replicates: usize, within_ms: u64, instances: usize },
}

impl RuleViolation for Violation {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        Class::Load
    }
}

/// Counts REPLICATEs.
#[derive(Debug, Default)]
pub(super) struct ReplicatesBounded {
    instances: BTreeSet<InstanceName>,
    recent: VecDeque<SimTime>,
    judged: u64,
}

impl ReplicatesBounded {
    fn allowed(&self) -> usize {
        (CONNECTIONS_MAX * self.instances.len()).max(REPLICATES_MIN)
    }

    fn add_instance(&mut self, instance: &InstanceName) {
        if !self.instances.contains(instance) {
            self.instances.insert(instance.clone());
        }
    }
}

impl Rule for ReplicatesBounded {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        match payload.command {
            Ok(Command::Rdata(rdata)) => self.add_instance(&rdata.writer),
            Ok(Command::Position(position)) => self.add_instance(&position.writer),
            Ok(Command::FederationAck(ack)) => self.add_instance(&ack.instance),
            Ok(Command::Replicate) => {
                let Some(at) = payload.at else { return };
                self.judged += 1;
                self.recent.push_back(at);
                self.recent.retain(|then| at.ms_since(*then) < WINDOW_MS);
                if self.recent.len() > self.allowed() {
                    let replicates = self.recent.len();
                    let instances = self.instances.len();
                    findings.add(payload.line, Violation::Storm { replicates, within_ms: WINDOW_MS, instances });
                    // A storm that goes on is found again in each window.
                    self.recent.clear();
                }
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        // The other instances may have lost the broker, too, and are right to connect again.
        self.recent.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::found_at;

    fn every(ms: u64, times: u64) -> Vec<(u64, &'static str)> {
        (0..times).map(|ordinal| (ordinal * ms, "REPLICATE")).collect()
    }

    #[test]
    fn a_reconnect_each_second_is_a_storm_for_as_long_as_it_lasts() {
        assert_eq!(found_at(ReplicatesBounded::default(), &every(1_000, 60)).len(), 5);
    }

    #[test]
    fn a_reconnect_now_and_then_is_no_storm() {
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
