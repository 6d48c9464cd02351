//! Reads a plan that may have been edited by hand.
//!
//! A plan is checked as a whole before it runs. An error names the place and the remedy: a mistyped host that is only skipped
//! would make a finding vanish.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use super::client::{CLIENT_PAUSE_MS_MAX, CLIENT_TIMEOUT_MS_MAX};
use super::{
    ADDED_PAUSE_MS_MAX, AddedWriter, BROKER, DEFERRAL_MS_MAX, DELAY_US_MAX, FORMAT, Fault, HOSTS_MAX, LIMIT_MAX,
    OperationKind, Plan, ROWS_MAX, STORM_MS_MAX,
};
use crate::instance::config::check_name;
use crate::presence::PresenceConfig;
use crate::sim::invalid::{InvalidValue, check_at_least, check_at_most, check_per_mille, check_range};

/// The longest name of a host, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// An error in a plan, which cannot be run.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The text is not JSON, or does not have the shape of a plan.
    #[error("not a plan, at line {line}, column {column}: {cause}; compare with what `squall run` prints for a seed")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The error of the parser.
        cause: serde_json::Error,
    },
    /// The plan has a version that this program does not know.
    #[error(
        "the plan has format {found}, this program reads format {FORMAT}: draw it again from its seed, or use the program that wrote it"
    )]
    UnknownFormat {
        /// The plan's version.
        found: u32,
    },
    /// A value cannot be used.
    #[error("{place} {problem}")]
    Invalid {
        /// The place of the value.
        place: Place,
        /// The value, and the remedy.
        problem: InvalidValue,
    },
    /// The name of a host does not fit a line of the protocol.
    #[error("the topology has a host named {host:?}: use at most 63 letters, digits and signs, without spaces")]
    BadHost {
        /// The name.
        host: String,
    },
    /// Two hosts have one name.
    #[error("the topology has two hosts named `{host}`: rename one of them")]
    DuplicateHost {
        /// The name.
        host: String,
    },
    /// A stream has no writer.
    #[error("topology.{stream}_writers is empty: name at least one")]
    NoWriter {
        /// The stream.
        stream: &'static str,
    },
    /// A stream names a writer twice.
    #[error("topology.{stream}_writers names `{host}` twice: name each writer once")]
    TwiceAWriter {
        /// The stream.
        stream: &'static str,
        /// The writer.
        host: String,
    },
    /// Two operations have the same id, and would write the same events.
    #[error("{place} has the id {id}, like another operation: give it another id, or leave the ids of both out")]
    DuplicateOperation {
        /// The place.
        place: Place,
        /// The id.
        id: usize,
    },
    /// Two clients are the same device, whose tokens would be mixed up.
    #[error("{place} is device {device} of user {user}, like another client: give it another device")]
    DuplicateClient {
        /// The place.
        place: Place,
        /// The user.
        user: u32,
        /// The device.
        device: u32,
    },
    /// A client has no host to sync with.
    #[error("{place} has no hosts to sync with: name at least one")]
    NoHosts {
        /// The place.
        place: Place,
    },
    /// A host cannot be added while the deployment runs.
    #[error(
        "topology.added.host cannot be `{host}`: name a writer of events or receipts beside others, which writes nothing \
         else and is not the master"
    )]
    CannotBeAdded {
        /// The host.
        host: String,
    },
    /// An operation or a fault comes after the end of the storm.
    #[error("{place} is at {at_ms} ms, after the storm's end: use a time up to {storm_ms} ms, or raise storm_ms")]
    TooLate {
        /// The place.
        place: Place,
        /// The time of the operation or fault.
        at_ms: u64,
        /// The end of the storm.
        storm_ms: u64,
    },
}

/// A place in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An operation, by its index.
    Operation(usize),
    /// A fault, by its index.
    Fault(usize),
    /// A client, by its index.
    Client(usize),
    /// A field of the plan.
    Field(&'static str),
}

impl Place {
    /// Returns a function that adds this place to the message about a value.
    fn holds(self) -> impl FnOnce(InvalidValue) -> PlanError {
        move |problem| PlanError::Invalid { place: self, problem }
    }
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

/// The part that plans of every version have.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

impl Plan {
    /// Reads a plan from JSON and checks that it can be run.
    ///
    /// # Errors
    /// The first error in the plan.
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
        self.check_settings()
    }

    fn check_settings(&self) -> Result<(), PlanError> {
        let Plan { network, scheduling, database, presence, .. } = self;
        let PresenceConfig { refresh_ms, process_expiry_ms, idle_ms, busy_ms } = *presence;
        let checks = [
            ("scheduling.deferred_per_mille", check_per_mille(scheduling.deferred_per_mille)),
            ("scheduling.deferral_ms_max", check_at_most(scheduling.deferral_ms_max, DEFERRAL_MS_MAX)),
            ("storm_ms", check_at_most(self.storm_ms, STORM_MS_MAX)),
            ("operations", check_at_most(self.rows(), ROWS_MAX)),
            ("network", check_at_most(network.latency_us_max, DELAY_US_MAX)),
            ("database.before_us", check_at_most(database.before_us.1, DELAY_US_MAX)),
            ("database.after_us", check_at_most(database.after_us.1, DELAY_US_MAX)),
            ("presence.idle_ms", check_at_most(idle_ms, STORM_MS_MAX)),
            ("presence.busy_ms", check_at_most(busy_ms, STORM_MS_MAX)),
            ("presence.process_expiry_ms", check_at_most(process_expiry_ms, STORM_MS_MAX)),
            ("network", check_range(network.latency_us_min, network.latency_us_max)),
            ("database.before_us", check_range(database.before_us.0, database.before_us.1)),
            ("database.after_us", check_range(database.after_us.0, database.after_us.1)),
            ("database.rollback_per_mille", check_per_mille(database.rollback_per_mille)),
            ("presence.idle_ms", check_range(1, idle_ms)),
            ("presence.busy_ms", check_range(1, busy_ms)),
            ("presence.refresh_ms", check_range(1, refresh_ms)),
            ("presence.refresh_ms", check_range(refresh_ms, process_expiry_ms / 2)),
        ];
        for (field, check) in checks {
            check.map_err(Place::Field(field).holds())?;
        }
        for (field, value, least) in self.limits.set() {
            let check = check_at_least(value, least).and(check_at_most(value, LIMIT_MAX));
            check.map_err(Place::Field(field).holds())?;
        }
        Ok(())
    }

    fn check_operations(&self) -> Result<(), PlanError> {
        let mut ids = BTreeSet::new();
        for (index, operation) in self.operations.iter().enumerate() {
            let place = Place::Operation(index);
            let id = operation.id.unwrap_or(index);
            if !ids.insert(id) {
                return Err(PlanError::DuplicateOperation { place, id });
            }
            for (amount, most) in operation.kind.amounts() {
                check_at_most(amount, most).map_err(place.holds())?;
            }
            if let OperationKind::StateBurst { rows, tokens, .. } = operation.kind {
                check_range(u64::from(tokens), u64::from(rows)).map_err(place.holds())?;
                check_range(1, u64::from(tokens)).map_err(place.holds())?;
            }
        }
        Ok(())
    }

    fn check_hosts(&self) -> Result<(), PlanError> {
        let hosts = self.topology.hosts().count() as u64;
        check_at_most(hosts, HOSTS_MAX as u64).map_err(Place::Field("topology").holds())?;
        if let Some(host) =
            self.topology.machines().find(|host| check_name("host", host).is_err() || host.len() > NAME_BYTES_MAX)
        {
            return Err(PlanError::BadHost { host: host.to_owned() });
        }
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
            let mut seen = BTreeSet::new();
            if let Some(host) = writers.iter().find(|writer| !seen.insert(*writer)) {
                return Err(PlanError::TwiceAWriter { stream, host: host.clone() });
            }
        }
        for (field, writer) in self.topology.stream_writers() {
            self.check_host(Place::Field(field), writer)?;
        }
        if let Some(AddedWriter { host, pause_ms, .. }) = &self.topology.added {
            if !self.topology.can_be_added(host) {
                return Err(PlanError::CannotBeAdded { host: host.clone() });
            }
            check_at_most(*pause_ms, ADDED_PAUSE_MS_MAX).map_err(Place::Field("topology.added.pause_ms").holds())?;
        }
        for (index, operation) in self.operations.iter().enumerate() {
            if let Some(host) = operation.kind.host() {
                self.check_host(Place::Operation(index), host)?;
            }
        }
        for (index, entry) in self.faults.iter().enumerate() {
            let place = Place::Fault(index);
            let hosts = entry.fault.hosts();
            for host in &hosts {
                self.check_fault_host(place, &entry.fault, host)?;
            }
            if let [host, other] = hosts[..]
                && host == other
            {
                return Err(InvalidValue::SameHost { host: host.to_owned() }).map_err(place.holds());
            }
            entry.fault.check().map_err(place.holds())?;
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
                check_per_mille(per_mille).map_err(place.holds())?;
            }
            check_at_most(client.timeout_ms, CLIENT_TIMEOUT_MS_MAX).map_err(place.holds())?;
            check_at_most(client.pause_ms, CLIENT_PAUSE_MS_MAX).map_err(place.holds())?;
        }
        Ok(())
    }

    /// Checks that `host` is an instance or, if the fault can hit it, the broker.
    fn check_fault_host(&self, place: Place, fault: &Fault, host: &str) -> Result<(), PlanError> {
        let is_broker = host == BROKER && self.topology.broker.is_some();
        if is_broker && fault.family().hits_broker() { Ok(()) } else { self.check_host(place, host) }
    }

    fn check_host(&self, place: Place, host: &str) -> Result<(), PlanError> {
        if self.topology.hosts().any(|known| known == host) {
            return Ok(());
        }
        let known = self.topology.hosts().map(str::to_owned).collect();
        Err(InvalidValue::UnknownHost { host: host.to_owned(), known }).map_err(place.holds())
    }

    fn check_times(&self) -> Result<(), PlanError> {
        let operations = self.operations.iter().map(|operation| operation.at_ms).enumerate();
        let faults = self.faults.iter().map(|entry| entry.at_ms).enumerate();
        let operations = operations.map(|(index, at_ms)| (Place::Operation(index), at_ms));
        let added = self.topology.added.iter().map(|added| (Place::Field("topology.added"), added.at_ms));
        let mut all = operations.chain(faults.map(|(index, at_ms)| (Place::Fault(index), at_ms))).chain(added);
        let storm_ms = self.storm_ms;
        match all.find(|(_, at_ms)| *at_ms > storm_ms) {
            Some((place, at_ms)) => Err(PlanError::TooLate { place, at_ms, storm_ms }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
