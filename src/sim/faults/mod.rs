//! Faults: the things that go wrong in a run.
//!
//! Each fault has a file with all that belongs to it: its data, and how it is drawn, checked, injected and described. Some
//! faults have the same shape: `per_mille` and `outage` have their data and their checks, and the file of the fault has the
//! rest. One line in the list below registers a fault. Its place in the list is part of every plan that a seed stands for, so
//! a new fault is added at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use strum::VariantArray;
use tokio::time::Instant;

use self::kind::{FaultKind, Span};
use super::invalid::InvalidValue;
use squall_judge::Observation;
use squall_netsim::Unsupported;
use squall_protocol::InstanceName;

mod cluster;
mod database;
mod draw;
mod kind;
mod outage;
mod per_mille;

pub(super) use self::cluster::Cluster;
pub(super) use self::draw::{Draw, STABLE_MS};
pub(super) use self::kind::Outage;

/// Declares the modules of the faults, [`Fault`] and [`Family`]. `once` gives the name that a fault had before, which plans
/// may still use.
macro_rules! faults {
    ($($module:ident :: $Fault:ident $(once $once:literal)?,)+) => {
        $(
            mod $module;
            pub use self::$module::$Fault;
        )+

        /// A fault, between or on hosts given by name. A fault that lasts is healed after its duration, and at the end of
        /// the storm at the latest.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Fault {
            $(
                #[doc = concat!("A fault of the family [`", stringify!($Fault), "`](Family::", stringify!($Fault), ").")]
                $(#[serde(alias = $once)])?
                $Fault($Fault),
            )+
        }

        /// A kind of fault. Every seed switches some of them off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::IntoStaticStr, VariantArray)]
        #[strum(serialize_all = "snake_case")]
        pub enum Family {
            $(
                #[doc = concat!("The family of [`", stringify!($Fault), "`](type@", stringify!($Fault), ").")]
                $Fault,
            )+
        }

        impl Family {
            /// Returns the name that the family had when it was added. Draws are keyed by it.
            pub(super) fn first_name(self) -> &'static str {
                match self {
                    $($(Family::$Fault => $once,)?)+
                    #[allow(unreachable_patterns)]
                    _ => self.name(),
                }
            }

            /// Returns true if faults of the family can hit the broker's host too, and not only instances.
            pub fn hits_broker(self) -> bool {
                match self {
                    $(Family::$Fault => $Fault::HITS_BROKER,)+
                }
            }

            /// Returns true if faults of the family hit the broker alone.
            pub(super) fn needs_broker(self) -> bool {
                match self {
                    $(Family::$Fault => $Fault::NEEDS_BROKER,)+
                }
            }

            /// Returns true if only the scenarios of wide worlds have faults of the family.
            pub(super) fn is_wide_only(self) -> bool {
                match self {
                    $(Family::$Fault => $Fault::WIDE_ONLY,)+
                }
            }

            fn disturbs(self) -> bool {
                match self {
                    $(Family::$Fault => $Fault::DISTURBS,)+
                }
            }

            /// Returns the number of faults of the family in a plan of one minute that has any.
            pub(super) fn per_plan(self) -> std::ops::RangeInclusive<u32> {
                match self {
                    $(Family::$Fault => $Fault::PER_PLAN,)+
                }
            }

            /// Draws a fault of the family. Returns none if there is no room for it at that time.
            pub(super) fn draw(self, draw: &mut Draw<'_>) -> Option<Fault> {
                match self {
                    $(Family::$Fault => $Fault::draw(draw).map(Fault::$Fault),)+
                }
            }

            fn shrinkable(self) -> &'static [&'static str] {
                match self {
                    $(Family::$Fault => $Fault::SHRINKABLE,)+
                }
            }

            fn linger_ms(self) -> u64 {
                match self {
                    $(Family::$Fault => $Fault::LINGER_MS,)+
                }
            }
        }

        impl Fault {
            /// Returns the family of the fault.
            pub fn family(&self) -> Family {
                match self {
                    $(Fault::$Fault(_) => Family::$Fault,)+
                }
            }

            /// Returns the hosts that the fault names: none if it hits all of them.
            pub fn hosts(&self) -> Vec<&str> {
                match self {
                    $(Fault::$Fault(fault) => fault.hosts(),)+
                }
            }

            /// Returns the times at which the fault keeps hosts down.
            pub(super) fn outages(&self) -> Vec<Outage<'_>> {
                match self {
                    $(Fault::$Fault(fault) => fault.outages(),)+
                }
            }

            /// Returns how long the fault lasts, in milliseconds: 0 if it is over at once, or never.
            pub fn for_ms(&self) -> u64 {
                match self {
                    $(Fault::$Fault(fault) => fault.for_ms(),)+
                }
            }

            /// Checks the fault's values, besides the names of its hosts.
            ///
            /// # Errors
            /// The first value that cannot be used.
            pub(super) fn check(&self) -> Result<(), InvalidValue> {
                match self {
                    $(Fault::$Fault(fault) => fault.check(),)+
                }
            }

            async fn inject_for(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
                match self {
                    $(Fault::$Fault(fault) => fault.inject(cluster, span).await,)+
                }
            }

            fn describe(&self) -> String {
                match self {
                    $(Fault::$Fault(fault) => fault.describe(),)+
                }
            }
        }

        $(
            impl From<$Fault> for Fault {
                fn from(fault: $Fault) -> Fault {
                    Fault::$Fault(fault)
                }
            }
        )+

        /// The files of the faults, without their ending.
        #[cfg(test)]
        const MODULES: &[&str] = &[$(stringify!($module)),+];
    };
}

faults! {
    latency::Latency,
    cut::Cut,
    flap::Flap,
    lost_reply::LostReply,
    partition::Partition,
    half_open::HalfOpen,
    slow_drip::SlowDrip,
    power_cut::PowerCut,
    restart::Restart,
    rolling_restart::RollingRestart,
    freeze::Freeze,
    slow_consumer::SlowConsumer,
    slow_writer::SlowWriter,
    slow_database::SlowDatabase,
    stalled_database::StalledDatabase,
    failing_database::FailingDatabase,
    failing_handlers::FailingHandlers,
    lost_acknowledgement::LostAcknowledgement,
    cancelled_requests::CancelledRequests,
    broken_stream::BrokenStream,
    version_skew::VersionSkew once "strangers",
    late_bytes::LateBytes,
    broker_failover::BrokerFailover,
    odd_framing::OddFraming,
    forged_positions::ForgedPositions,
    clock_step::ClockStep,
}

/// A fault at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultEntry {
    /// The time of the fault, in simulated milliseconds since the start.
    pub at_ms: u64,
    /// The fault.
    pub fault: Fault,
}

impl Family {
    /// Every family.
    pub const ALL: &'static [Family] = Family::VARIANTS;

    /// Returns the family's name, as in a plan.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Fault {
    /// Injects the fault, waits until it is over, or until the storm ends at `storm_end`, and heals it. Returns true if
    /// it took effect: a fault that found nothing to disturb does not count.
    ///
    /// # Errors
    /// [`Unsupported`] if the engine cannot inject it.
    pub(super) async fn inject(self, cluster: &dyn Cluster, storm_end: Instant) -> Result<bool, Unsupported> {
        let until = (Instant::now() + Duration::from_millis(self.for_ms())).min(storm_end);
        let hosts = self.disturbs(cluster);
        let lingers_ms = self.family().linger_ms();
        cluster.observe(&Observation::FaultBegan { hosts: hosts.clone() });
        let injected = self.inject_for(cluster, Span { until, storm_end }).await;
        cluster.observe(&Observation::FaultEnded { hosts, lingers_ms });
        injected
    }

    /// Returns the hosts that the fault disturbs.
    fn disturbs(&self, cluster: &dyn Cluster) -> Vec<InstanceName> {
        match &self.hosts()[..] {
            _ if !self.family().disturbs() => Vec::new(),
            [] => cluster.instances().to_vec(),
            hosts => hosts.iter().map(|host| InstanceName::from(*host)).collect(),
        }
    }

    /// Returns the fields of faults in which a lower number means a milder fault.
    pub(super) fn shrinkable() -> Vec<&'static str> {
        Family::ALL.iter().flat_map(|family| family.shrinkable()).copied().collect()
    }

    /// Returns the longest that effects of faults last after the faults are over.
    pub(super) fn linger_max() -> Duration {
        Duration::from_millis(Family::ALL.iter().map(|family| family.linger_ms()).sum())
    }
}

impl fmt::Display for Fault {
    /// Describes the fault: `partition from worker1 to writer2, for 3.0 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())?;
        match self.for_ms() {
            0 => Ok(()),
            for_ms => write!(f, ", for {:.1} s", for_ms as f64 / 1000.0),
        }
    }
}

/// Returns the present name of a family that may be given by its first name. Other names stay as they are.
pub(super) fn present_name(name: &str) -> &str {
    let renamed = Family::ALL.iter().find(|family| family.first_name() == name);
    renamed.map_or(name, |family| family.name())
}

/// Reads counts by family, which may be given by their first names.
pub(super) fn read_counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let mut counts = BTreeMap::new();
    for (name, count) in BTreeMap::<String, u64>::deserialize(deserializer)? {
        *counts.entry(present_name(&name).to_owned()).or_default() += count;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files in this folder that are not faults.
    const OTHERS: [&str; 7] = ["cluster", "database", "draw", "kind", "mod", "outage", "per_mille"];

    #[test]
    fn every_file_of_a_fault_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sim/faults");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if !OTHERS.contains(&name.as_str()) {
                found.push(name);
            }
        }
        found.sort();
        let mut listed = MODULES.to_vec();
        listed.sort();
        assert_eq!(listed, found);
    }

    #[test]
    fn a_family_has_the_name_of_its_file_and_of_its_faults_in_plans() {
        for (family, module) in Family::ALL.iter().zip(MODULES) {
            assert_eq!(family.name(), *module);
        }
        let cut = Fault::from(Cut { a: "worker1".into(), b: "writer1".into() });
        assert_eq!(serde_json::to_string(&cut).unwrap(), r#"{"cut":{"a":"worker1","b":"writer1"}}"#);
        assert_eq!(cut.family().name(), "cut");
    }

    #[test]
    fn a_fault_is_read_by_its_first_name_and_written_by_its_present_one() {
        let fault: Fault =
            serde_json::from_str(r#"{"strangers":{"host":"worker1","per_mille":7,"for_ms":5}}"#).unwrap();
        assert_eq!(fault.family(), Family::VersionSkew);
        let present = r#"{"version_skew":{"host":"worker1","per_mille":7,"for_ms":5}}"#;
        assert_eq!(serde_json::to_string(&fault).unwrap(), present);
        assert_eq!((Family::VersionSkew.first_name(), Family::Cut.first_name()), ("strangers", "cut"));
        assert_eq!(
            (present_name("strangers"), present_name("cut"), present_name("set_up")),
            ("version_skew", "cut", "set_up")
        );
    }

    #[test]
    fn counts_by_first_names_are_read_as_those_of_present_names() {
        let mut json = serde_json::Deserializer::from_str(r#"{"cut":2,"strangers":3,"version_skew":1}"#);
        let counts = read_counts(&mut json).unwrap();
        assert_eq!(counts, BTreeMap::from([("cut".to_owned(), 2), ("version_skew".to_owned(), 4)]));
    }

    #[test]
    fn an_unknown_field_of_a_fault_is_refused() {
        let faults = [
            r#"{"cut":{"a":"worker1","b":"writer1","kind":null}}"#,
            r#"{"power_cut":{"host":"worker1","for_ms":1,"kind":null}}"#,
            r#"{"failing_database":{"host":"worker1","per_mille":1,"for_ms":1,"kind":null}}"#,
        ];
        for fault in faults {
            let error = serde_json::from_str::<Fault>(fault).unwrap_err();
            assert!(error.to_string().contains("unknown field `kind`"), "{error}");
        }
    }

    #[test]
    fn a_fault_that_lasts_is_described_with_its_duration() {
        let partition = |both| Partition { from: "worker1".into(), to: "writer2".into(), both, for_ms: 3_000 };
        assert_eq!(Fault::from(partition(false)).to_string(), "partition from worker1 to writer2, for 3.0 s");
        assert_eq!(Fault::from(partition(true)).to_string(), "partition between worker1 and writer2, for 3.0 s");
        let cut = Cut { a: "worker1".into(), b: "writer1".into() };
        assert_eq!(Fault::from(cut).to_string(), "cut between worker1 and writer1");
    }
}
