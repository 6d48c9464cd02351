//! Scenarios: the shapes of runs that plans are drawn for.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};
use thiserror::Error;

use crate::sim::deployment::Deployment;
use squall_protocol::MASTER;

/// The shape of a run.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", parse_err_ty = UnknownScenario, parse_err_fn = UnknownScenario::new)]
pub enum Scenario {
    /// Six hosts and a minute of storm: small enough to find defects fast.
    #[default]
    Storm,
    /// A world of its own for each seed: its hosts, its writers, its length, its operations.
    Swarm,
    /// Nine hosts and ten minutes with nothing but pings and heartbeats: it measures the cost of idleness.
    Quiet,
    /// [`Storm`](Scenario::Storm) over Redis.
    Redis,
    /// [`Swarm`](Scenario::Swarm) over Redis.
    RedisSwarm,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: &'static [Scenario] = Scenario::VARIANTS;

    /// Returns the scenario's name on the command line and in a plan.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the length of the storm, in simulated milliseconds.
    pub(super) fn storm_ms(self) -> u64 {
        match self {
            Scenario::Storm | Scenario::Swarm | Scenario::Redis | Scenario::RedisSwarm => 60_000,
            Scenario::Quiet => 600_000,
        }
    }

    /// Returns true if instances replicate through a broker.
    pub fn is_over_redis(self) -> bool {
        matches!(self, Scenario::Redis | Scenario::RedisSwarm)
    }

    /// Returns true if each seed has a world of its own: hosts, writers, the length of the storm, the operations, and
    /// in some the limits of the instances.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Scenario::Swarm | Scenario::RedisSwarm)
    }

    /// Returns the scenario's hosts, with the master as the writer of every stream that has only one.
    pub(super) fn deployment(self) -> Deployment {
        let workers = match self {
            Scenario::Storm | Scenario::Redis => 3,
            Scenario::Swarm | Scenario::Quiet | Scenario::RedisSwarm => 6,
        };
        Deployment {
            events_writers: (1..=2).map(|n| format!("writer{n}")).collect(),
            typing_writer: MASTER.to_owned(),
            account_data_writer: MASTER.to_owned(),
            presence_writer: MASTER.to_owned(),
            receipts_writers: (1..=2).map(|n| format!("writer{n}")).collect(),
            to_device_writer: MASTER.to_owned(),
            workers: (1..=workers).map(|n| format!("worker{n}")).collect(),
            broker: None,
            added: None,
        }
    }
}

/// The name of a scenario that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown scenario `{0}`: use one of {known}", known = known_names())]
pub struct UnknownScenario(pub String);

impl UnknownScenario {
    fn new(name: &str) -> Self {
        UnknownScenario(name.to_owned())
    }
}

fn known_names() -> String {
    let names: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_has_one_name_on_the_command_line_and_in_json() {
        for &scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(scenario));
            assert_eq!(scenario.to_string(), scenario.name());
            assert_eq!(serde_json::to_value(scenario).unwrap(), scenario.name());
        }
    }

    #[test]
    fn the_error_for_an_unknown_scenario_names_the_known_ones() {
        let error = "strom".parse::<Scenario>().unwrap_err();
        assert_eq!(error.to_string(), "unknown scenario `strom`: use one of storm, swarm, quiet, redis, redis_swarm");
    }
}
