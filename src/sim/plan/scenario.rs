//! Scenarios: the shapes of runs that plans are drawn for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Deployment, MASTER};

/// The shape of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Six hosts, a minute of storm: small enough to find things fast.
    #[default]
    Storm,
    /// Nine hosts, a minute of storm.
    Swarm,
    /// Nine hosts and ten minutes in which nothing happens but pings and heartbeats: measures what idleness costs.
    Quiet,
    /// [`Storm`](Scenario::Storm) over Redis.
    Redis,
    /// [`Swarm`](Scenario::Swarm) over Redis.
    RedisSwarm,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Scenario; 5] =
        [Scenario::Storm, Scenario::Swarm, Scenario::Quiet, Scenario::Redis, Scenario::RedisSwarm];

    /// The scenario's name on the command line and in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Storm => "storm",
            Scenario::Swarm => "swarm",
            Scenario::Quiet => "quiet",
            Scenario::Redis => "redis",
            Scenario::RedisSwarm => "redis_swarm",
        }
    }

    /// How long the storm lasts, in simulated milliseconds.
    pub(super) fn storm_ms(self) -> u64 {
        match self {
            Scenario::Storm | Scenario::Swarm | Scenario::Redis | Scenario::RedisSwarm => 60_000,
            Scenario::Quiet => 600_000,
        }
    }

    /// Whether instances meet at a broker.
    pub fn is_over_redis(self) -> bool {
        matches!(self, Scenario::Redis | Scenario::RedisSwarm)
    }

    /// The scenario's hosts, with the master writing what only one can.
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
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A scenario that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown scenario `{0}`: use one of {known}", known = Scenario::ALL.map(Scenario::name).join(", "))]
pub struct UnknownScenario(pub String);

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(name: &str) -> Result<Self, UnknownScenario> {
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.ok_or_else(|| UnknownScenario(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_known_by_its_name_on_the_command_line_and_in_json() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(scenario));
            assert_eq!(serde_json::to_value(scenario).unwrap(), scenario.name());
        }
    }

    #[test]
    fn an_unknown_scenario_is_answered_with_the_known_ones() {
        let error = "strom".parse::<Scenario>().unwrap_err();
        assert_eq!(error.to_string(), "unknown scenario `strom`: use one of storm, swarm, quiet, redis, redis_swarm");
    }
}
