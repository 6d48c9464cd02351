//! The names of the engines.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An engine, by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// Event-driven, on the sockets of turmoil-net.
    #[default]
    TurmoilNet,
    /// turmoil's own `Sim`, in steps of a millisecond.
    Turmoil,
}

impl EngineName {
    /// Every engine.
    pub const ALL: [EngineName; 2] = [EngineName::TurmoilNet, EngineName::Turmoil];

    /// The engine's name on the command line and in a verdict.
    pub fn name(self) -> &'static str {
        match self {
            EngineName::TurmoilNet => "turmoil-net",
            EngineName::Turmoil => "turmoil",
        }
    }

    /// The command-line argument that selects this engine, after a space; empty for the default engine.
    pub fn argument(self) -> String {
        if self == EngineName::default() { String::new() } else { format!(" --engine {self}") }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An engine that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown engine `{0}`: use one of {known}", known = EngineName::ALL.map(EngineName::name).join(", "))]
pub struct UnknownEngine(pub String);

impl FromStr for EngineName {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        let found = EngineName::ALL.into_iter().find(|engine| engine.name() == name);
        found.ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_known_by_its_name_on_the_command_line_and_in_json() {
        for engine in EngineName::ALL {
            assert_eq!(engine.name().parse(), Ok(engine));
            assert_eq!(serde_json::to_value(engine).unwrap(), engine.name());
        }
        let error = "turmoi".parse::<EngineName>().unwrap_err();
        assert_eq!(error.to_string(), "unknown engine `turmoi`: use one of turmoil-net, turmoil");
    }

    #[test]
    fn only_the_engine_that_is_not_the_default_needs_an_argument() {
        assert_eq!(EngineName::ALL.map(EngineName::argument), ["", " --engine turmoil"]);
    }
}
