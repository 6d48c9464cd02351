//! Reading a plan that may have been edited by hand.
//!
//! A plan is checked as a whole before anything runs, and whatever is wrong is answered with where it is and what to do
//! about it: a mistyped host that is only skipped would make a finding vanish.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use super::client::{CLIENT_PAUSE_MS_MAX, CLIENT_TIMEOUT_MS_MAX};
use super::{BROKER, DEFERRAL_MS_MAX, DELAY_MS_MAX, EXTRA_MS_MAX, FORMAT, Fault, OperationKind, Plan};
use crate::instance::config::PresenceConfig;
use crate::streams::SOURCES;

/// Why a plan cannot be run.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Not JSON, or not in the shape of a plan.
    #[error("not a plan, at line {line}, column {column}: {cause}; compare with what `squall run` prints for a seed")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What was found there.
        cause: serde_json::Error,
    },
    /// The plan is of a version that this program does not know.
    #[error(
        "the plan has format {found}, this program reads format {FORMAT}: draw it again from its seed, or use the program that wrote it"
    )]
    UnknownFormat {
        /// The plan's version.
        found: u32,
    },
    /// A host is named that the deployment does not have.
    #[error("{place} names the host `{host}`: use one of {}, or add it to the topology", known.join(", "))]
    UnknownHost {
        /// Where it is named.
        place: Place,
        /// The name.
        host: String,
        /// The hosts there are.
        known: Vec<String>,
    },
    /// A stream is named that is not in the database.
    #[error("{place} names the stream `{stream}`: use one of {}", known.join(", "))]
    UnknownStream {
        /// Where it is named.
        place: Place,
        /// The name.
        stream: String,
        /// The streams there are.
        known: Vec<&'static str>,
    },
    /// Two hosts have one name.
    #[error("the topology has two hosts named `{host}`: rename one of them")]
    DuplicateHost {
        /// The name.
        host: String,
    },
    /// Nobody writes a stream.
    #[error("topology.{stream}_writers is empty: name at least one")]
    NoWriter {
        /// The stream.
        stream: &'static str,
    },
    /// A fault between a host and itself.
    #[error("{place} is between `{host}` and itself: name two hosts")]
    SameHost {
        /// Where it stands.
        place: Place,
        /// The host.
        host: String,
    },
    /// A fault on no host.
    #[error("{place} names no host: name at least one, or leave the fault out")]
    NoHost {
        /// Where it stands.
        place: Place,
    },
    /// Two operations have one id, and would write the same events.
    #[error("{place} has the id {id}, as another operation has: give it another one, or none of them any")]
    DuplicateOperation {
        /// Where it stands.
        place: Place,
        /// The id.
        id: usize,
    },
    /// Two clients are one device, whose tokens would run into each other.
    #[error("{place} is device {device} of user {user}, as another is: give it another device")]
    DuplicateClient {
        /// Where it stands.
        place: Place,
        /// The user.
        user: u32,
        /// The device.
        device: u32,
    },
    /// A client knows nobody to sync with.
    #[error("{place} has no hosts to sync with: name at least one")]
    NoHosts {
        /// Where it stands.
        place: Place,
    },
    /// Something would happen after the end of the storm.
    #[error("{place} is at {at_ms} ms, after the storm's end: use a time up to {storm_ms} ms, or raise storm_ms")]
    TooLate {
        /// Where it stands.
        place: Place,
        /// When it would happen.
        at_ms: u64,
        /// When the storm ends.
        storm_ms: u64,
    },
    /// Nothing lies between a minimum and a maximum.
    #[error("{place} has an empty range, from {min} to {max}: raise the maximum or lower the minimum")]
    EmptyRange {
        /// Where it stands.
        place: Place,
        /// The minimum.
        min: u64,
        /// The maximum.
        max: u64,
    },
    /// A number is larger than anything may be.
    #[error("{place} has {value} where {max} is the most: lower it")]
    TooLarge {
        /// Where it stands.
        place: Place,
        /// The number.
        value: u64,
        /// The largest there may be.
        max: u64,
    },
}

/// A place in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An operation, by its place in the list, from 0.
    Operation(usize),
    /// A fault, by its place in the list, from 0.
    Fault(usize),
    /// A client, by its place in the list, from 0.
    Client(usize),
    /// A field of the plan.
    Field(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Operation(index) => write!(f, "operations[{index}]"),
            Place::Fault(index) => write!(f, "faults[{index}]"),
            Place::Client(index) => write!(f, "clients[{index}]"),
            Place::Field(field) => f.write_str(field),
        }
    }
}

/// What a plan of any version has.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

impl Plan {
    /// Reads a plan from JSON and checks that it can be run.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(text: &str) -> Result<Plan, PlanError> {
        let malformed =
            |cause: serde_json::Error| PlanError::Malformed { line: cause.line(), column: cause.column(), cause };
        let header: Header = serde_json::from_str(text).map_err(malformed)?;
        if header.format != FORMAT {
            return Err(PlanError::UnknownFormat { found: header.format });
        }
        let plan: Plan = serde_json::from_str(text).map_err(malformed)?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), PlanError> {
        self.check_hosts()?;
        self.check_times()?;
        self.check_operations()?;
        self.check_clients()?;
        let Plan { network, scheduling, database, .. } = self;
        check_most(Place::Field("scheduling.deferred_per_mille"), scheduling.deferred_per_mille.into(), 1_000)?;
        check_most(Place::Field("scheduling.deferral_ms_max"), scheduling.deferral_ms_max, DEFERRAL_MS_MAX)?;
        check_range(Place::Field("network"), network.latency_us_min, network.latency_us_max)?;
        check_range(Place::Field("database.before_us"), database.before_us.0, database.before_us.1)?;
        check_range(Place::Field("database.after_us"), database.after_us.0, database.after_us.1)?;
        check_range(Place::Field("database.rollback_per_mille"), u64::from(database.rollback_per_mille), 1_000)?;
        let PresenceConfig { refresh_ms, process_expiry_ms } = self.presence;
        check_range(Place::Field("presence.refresh_ms"), 1, refresh_ms)?;
        check_range(Place::Field("presence.refresh_ms"), refresh_ms, process_expiry_ms / 2)?;
        Ok(())
    }

    fn check_operations(&self) -> Result<(), PlanError> {
        let mut ids = BTreeSet::new();
        for (index, operation) in self.operations.iter().enumerate() {
            let (place, id) = (Place::Operation(index), operation.id.unwrap_or(index));
            if !ids.insert(id) {
                return Err(PlanError::DuplicateOperation { place, id });
            }
            if let OperationKind::StateBurst { rows, tokens, .. } = operation.kind {
                check_range(place, u64::from(tokens), u64::from(rows))?;
                check_range(place, 1, u64::from(tokens))?;
            }
        }
        Ok(())
    }

    fn check_hosts(&self) -> Result<(), PlanError> {
        let mut known = BTreeSet::new();
        if let Some(host) = self.topology.machines().find(|host| !known.insert(*host)) {
            return Err(PlanError::DuplicateHost { host: host.to_owned() });
        }
        for (stream, writers) in
            [("events", &self.topology.events_writers), ("receipts", &self.topology.receipts_writers)]
        {
            if writers.is_empty() {
                return Err(PlanError::NoWriter { stream });
            }
        }
        for (field, writer) in self.topology.stream_writers() {
            self.check_host(Place::Field(field), writer)?;
        }
        for (index, operation) in self.operations.iter().enumerate() {
            operation.kind.host().map_or(Ok(()), |host| self.check_host(Place::Operation(index), host))?;
        }
        for (index, entry) in self.faults.iter().enumerate() {
            let place = Place::Fault(index);
            let hosts = entry.fault.hosts();
            hosts.iter().try_for_each(|host| self.check_machine(place, &entry.fault, host))?;
            if let [host, other] = hosts[..]
                && host == other
            {
                return Err(PlanError::SameHost { place, host: host.to_owned() });
            }
            check_numbers(place, &entry.fault)?;
        }
        Ok(())
    }

    fn check_clients(&self) -> Result<(), PlanError> {
        let mut devices = BTreeSet::new();
        for (index, client) in self.clients.iter().enumerate() {
            let (place, user, device) = (Place::Client(index), client.user, client.device);
            if !devices.insert((user, device)) {
                return Err(PlanError::DuplicateClient { place, user, device });
            }
            if client.hosts.is_empty() {
                return Err(PlanError::NoHosts { place });
            }
            for host in &client.hosts {
                self.check_host(place, host)?;
            }
            for per_mille in [client.move_per_mille, client.lost_per_mille] {
                check_range(place, u64::from(per_mille), 1_000)?;
            }
            check_range(place, client.timeout_ms, CLIENT_TIMEOUT_MS_MAX)?;
            check_range(place, client.pause_ms, CLIENT_PAUSE_MS_MAX)?;
        }
        Ok(())
    }

    /// The network and the power can fail the broker too; everything else is about instances.
    fn check_machine(&self, place: Place, fault: &Fault, host: &str) -> Result<(), PlanError> {
        let is_broker = host == BROKER && self.topology.broker.is_some();
        if is_broker && fault.family().is_of_machines() { Ok(()) } else { self.check_host(place, host) }
    }

    fn check_host(&self, place: Place, host: &str) -> Result<(), PlanError> {
        if self.topology.hosts().any(|known| known == host) {
            return Ok(());
        }
        let known = self.topology.hosts().map(str::to_owned).collect();
        Err(PlanError::UnknownHost { place, host: host.to_owned(), known })
    }

    fn check_times(&self) -> Result<(), PlanError> {
        let operations = self.operations.iter().map(|operation| operation.at_ms).enumerate();
        let faults = self.faults.iter().map(|entry| entry.at_ms).enumerate();
        let operations = operations.map(|(index, at_ms)| (Place::Operation(index), at_ms));
        let mut all = operations.chain(faults.map(|(index, at_ms)| (Place::Fault(index), at_ms)));
        let storm_ms = self.storm_ms;
        match all.find(|(_, at_ms)| *at_ms > storm_ms) {
            Some((place, at_ms)) => Err(PlanError::TooLate { place, at_ms, storm_ms }),
            None => Ok(()),
        }
    }
}

/// What a fault's numbers must be like to mean anything.
fn check_numbers(place: Place, fault: &Fault) -> Result<(), PlanError> {
    match *fault {
        Fault::Latency { min_us, max_us, .. } => check_range(place, min_us, max_us),
        Fault::SlowDrip { bytes_per_sec, .. } => check_range(place, 1, bytes_per_sec),
        Fault::BrokenStream { ref stream, .. } if SOURCES.iter().all(|source| source.name != stream) => {
            let known = SOURCES.iter().map(|source| source.name).collect();
            Err(PlanError::UnknownStream { place, stream: stream.clone(), known })
        }
        Fault::RollingRestart { ref hosts, .. } if hosts.is_empty() => Err(PlanError::NoHost { place }),
        Fault::SlowWriter { delay_ms_min, delay_ms_max, rollback_per_mille, .. } => {
            check_range(place, delay_ms_min, delay_ms_max)?;
            check_most(place, delay_ms_max, DELAY_MS_MAX)?;
            check_most(place, rollback_per_mille.into(), 1_000)
        }
        Fault::SlowDatabase { extra_ms_min, extra_ms_max, .. } => {
            check_range(place, extra_ms_min, extra_ms_max)?;
            check_most(place, extra_ms_max, EXTRA_MS_MAX)
        }
        Fault::FailingDatabase { per_mille, .. }
        | Fault::FailingHandlers { per_mille, .. }
        | Fault::LostAcknowledgement { per_mille, .. }
        | Fault::CancelledRequests { per_mille, .. }
        | Fault::Strangers { per_mille, .. } => check_most(place, per_mille.into(), 1_000),
        Fault::Cut { .. }
        | Fault::Flap { .. }
        | Fault::LostReply { .. }
        | Fault::Partition { .. }
        | Fault::HalfOpen { .. }
        | Fault::PowerCut { .. }
        | Fault::Restart { .. }
        | Fault::RollingRestart { .. }
        | Fault::Freeze { .. }
        | Fault::SlowConsumer { .. }
        | Fault::StalledDatabase { .. }
        | Fault::BrokenStream { .. } => Ok(()),
    }
}

fn check_most(place: Place, value: u64, max: u64) -> Result<(), PlanError> {
    if value <= max { Ok(()) } else { Err(PlanError::TooLarge { place, value, max }) }
}

fn check_range(place: Place, min: u64, max: u64) -> Result<(), PlanError> {
    if min <= max { Ok(()) } else { Err(PlanError::EmptyRange { place, min, max }) }
}

#[cfg(test)]
mod tests {
    use super::super::{FaultEntry, Operation, Reading, Scenario, SchedulingPlan};
    use super::*;

    fn edited(edit: impl FnOnce(&mut Plan)) -> PlanError {
        let mut plan = Plan::generate(Scenario::Storm, 7);
        edit(&mut plan);
        Plan::load(&plan.to_json()).unwrap_err()
    }

    fn with_fault(fault: Fault) -> PlanError {
        edited(|plan| plan.faults = vec![FaultEntry { at_ms: 5, fault }])
    }

    fn cut(a: &str, b: &str) -> Fault {
        Fault::Cut { a: a.to_owned(), b: b.to_owned() }
    }

    #[test]
    fn a_plan_comes_back_from_json_as_it_was() {
        for scenario in Scenario::ALL {
            let plan = Plan::generate(scenario, 7);
            assert_eq!(Plan::load(&plan.to_json()).unwrap(), plan);
        }
    }

    #[test]
    fn a_malformed_plan_is_answered_with_line_and_column() {
        let error = Plan::load("{\"format\": 1,\n  \"seed\": x}").unwrap_err();
        assert!(matches!(error, PlanError::Malformed { line: 2, column: 11, .. }), "{error}");
        let misspelt = Plan::generate(Scenario::Quiet, 7).to_json().replace("\"storm_ms\"", "\"strom_ms\"");
        let error = Plan::load(&misspelt).unwrap_err().to_string();
        assert!(error.contains("line 5") && error.contains("strom_ms"), "{error}");
    }

    #[test]
    fn a_plan_of_another_format_is_refused_whatever_else_it_holds() {
        let error = Plan::load("{\"format\": 2, \"weather\": []}").unwrap_err();
        assert!(matches!(error, PlanError::UnknownFormat { found: 2 }), "{error}");
    }

    #[test]
    fn an_unknown_host_is_answered_with_the_known_ones() {
        let error = with_fault(cut("writer1", "writer9")).to_string();
        assert_eq!(
            error,
            "faults[0] names the host `writer9`: use one of master, writer1, writer2, worker1, worker2, worker3, or \
             add it to the topology"
        );
        let error = edited(|plan| plan.topology.typing_writer = "nobody".to_owned());
        assert!(matches!(error, PlanError::UnknownHost { place: Place::Field(_), .. }), "{error}");
        let error = with_fault(Fault::StalledDatabase { host: Some("nobody".to_owned()), for_ms: 1 });
        assert!(matches!(error, PlanError::UnknownHost { place: Place::Fault(0), .. }), "{error}");
    }

    #[test]
    fn a_read_through_an_unknown_host_is_answered_with_the_known_ones() {
        let kind = OperationKind::Read { host: "worker9".to_owned(), what: Reading::State { room: 0 } };
        let error = edited(|plan| plan.operations = vec![Operation::new(1, kind)]).to_string();
        assert!(error.starts_with("operations[0] names the host `worker9`: use one of master, "), "{error}");
    }

    #[test]
    fn a_stream_that_is_not_in_the_database_cannot_break_there() {
        let error = with_fault(Fault::BrokenStream { host: "master".to_owned(), stream: "typing".to_owned() });
        assert_eq!(
            error.to_string(),
            "faults[0] names the stream `typing`: use one of events, receipts, to_device, account_data, presence, caches"
        );
    }

    #[test]
    fn a_fault_between_a_host_and_itself_is_refused() {
        assert!(matches!(with_fault(cut("writer1", "writer1")), PlanError::SameHost { .. }));
    }

    #[test]
    fn a_rolling_restart_names_hosts_and_only_known_ones() {
        let rolling = |hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            with_fault(Fault::RollingRestart { hosts, down_ms: 1, pause_ms: 1 })
        };
        assert!(matches!(rolling(&[]), PlanError::NoHost { place: Place::Fault(0) }));
        assert!(matches!(rolling(&["master", "writer1", "nobody"]), PlanError::UnknownHost { .. }));
    }

    #[test]
    fn a_number_larger_than_anything_may_be_is_refused() {
        let error = edited(|plan| plan.scheduling.deferred_per_mille = 1_001);
        assert!(matches!(error, PlanError::TooLarge { value: 1_001, max: 1_000, .. }), "{error}");
        let error = edited(|plan| plan.scheduling.deferral_ms_max = DEFERRAL_MS_MAX + 1);
        assert!(matches!(error, PlanError::TooLarge { max: DEFERRAL_MS_MAX, .. }), "{error}");
    }

    #[test]
    fn a_plan_without_scheduling_defers_nothing() {
        let plan = Plan { scheduling: SchedulingPlan::default(), ..Plan::generate(Scenario::Storm, 7) };
        let mut json: serde_json::Value = serde_json::from_str(&plan.to_json()).unwrap();
        json.as_object_mut().unwrap().remove("scheduling").expect("it is written");
        assert_eq!(Plan::load(&json.to_string()).unwrap(), plan);
    }

    #[test]
    fn a_topology_has_writers_and_no_host_twice() {
        let error = edited(|plan| plan.topology.events_writers.clear());
        assert!(matches!(error, PlanError::NoWriter { stream: "events" }), "{error}");
        let error = edited(|plan| plan.topology.workers.push("master".to_owned()));
        assert!(matches!(error, PlanError::DuplicateHost { .. }), "{error}");
    }

    #[test]
    fn nothing_happens_after_the_storm() {
        let error = edited(|plan| plan.storm_ms = 30_000);
        assert!(matches!(error, PlanError::TooLate { place: Place::Operation(_), storm_ms: 30_000, .. }), "{error}");
        let fault = FaultEntry { at_ms: 60_001, fault: cut("master", "writer1") };
        let error = edited(|plan| plan.faults = vec![fault]);
        assert!(matches!(error, PlanError::TooLate { place: Place::Fault(0), at_ms: 60_001, .. }), "{error}");
    }

    #[test]
    fn an_empty_range_is_refused_wherever_it_is() {
        let place = |error| match error {
            PlanError::EmptyRange { place, .. } => place.to_string(),
            other => panic!("not an empty range: {other}"),
        };
        assert_eq!(place(edited(|plan| plan.network.latency_us_min = u64::MAX)), "network");
        assert_eq!(place(edited(|plan| plan.database.before_us = (2, 1))), "database.before_us");
        assert_eq!(place(edited(|plan| plan.database.after_us = (2, 1))), "database.after_us");
        assert_eq!(place(edited(|plan| plan.database.rollback_per_mille = 1_001)), "database.rollback_per_mille");
        let (from, to) = ("master".to_owned(), "writer1".to_owned());
        assert_eq!(place(with_fault(Fault::Latency { from, to, min_us: 2, max_us: 1, for_ms: 1 })), "faults[0]");
        let (from, to) = ("master".to_owned(), "writer1".to_owned());
        assert_eq!(place(with_fault(Fault::SlowDrip { from, to, bytes_per_sec: 0, for_ms: 1 })), "faults[0]");
        let slow = Fault::SlowDatabase { host: None, extra_ms_min: 2, extra_ms_max: 1, for_ms: 1 };
        assert_eq!(place(with_fault(slow)), "faults[0]");
        for (rows, tokens) in [(3, 4), (3, 0)] {
            let kind = OperationKind::StateBurst { room: 0, rows, tokens };
            let error = edited(|plan| plan.operations = vec![Operation::new(1, kind)]);
            assert_eq!(place(error), "operations[0]");
        }
    }

    #[test]
    fn two_operations_of_one_id_are_refused() {
        let error = edited(|plan| plan.operations[0].id = Some(4));
        assert!(
            matches!(error, PlanError::DuplicateOperation { place: Place::Operation(4), id: 4 }),
            "the place of one is the id of another: {error}"
        );
    }

    #[test]
    fn trouble_with_the_database_beyond_what_may_be_is_refused() {
        let host = || "writer1".to_owned();
        let slow = |delay_ms_max, rollback_per_mille| {
            let host = host();
            Fault::SlowWriter { host, delay_ms_min: 1, delay_ms_max, rollback_per_mille, for_ms: 1 }
        };
        let faults = [
            (slow(10_001, 0), 10_001, DELAY_MS_MAX),
            (slow(10_000, 1_001), 1_001, 1_000),
            (Fault::SlowDatabase { host: None, extra_ms_min: 1, extra_ms_max: 2_001, for_ms: 1 }, 2_001, EXTRA_MS_MAX),
            (Fault::FailingDatabase { host: host(), per_mille: 1_002, for_ms: 1 }, 1_002, 1_000),
            (Fault::FailingHandlers { host: host(), per_mille: 1_002, for_ms: 1 }, 1_002, 1_000),
            (Fault::LostAcknowledgement { host: host(), per_mille: 1_002, for_ms: 1 }, 1_002, 1_000),
            (Fault::CancelledRequests { host: host(), per_mille: 1_002, for_ms: 1 }, 1_002, 1_000),
            (Fault::Strangers { host: host(), per_mille: 1_002, for_ms: 1 }, 1_002, 1_000),
        ];
        for (fault, expected, most) in faults {
            let error = with_fault(fault);
            assert!(
                matches!(error, PlanError::TooLarge { place: Place::Fault(0), value, max } if (value, max) == (expected, most)),
                "{error}"
            );
        }
    }
}
