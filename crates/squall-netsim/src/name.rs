//! The names of the engines.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An engine, by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// Event-driven, with sockets of its own. Plans and findings from before it had these call it `turmoil-net`.
    #[default]
    #[serde(alias = "turmoil-net")]
    EventDriven,
    /// turmoil's own `Sim`, in steps of a millisecond.
    Turmoil,
}

impl EngineName {
    /// Every engine, whether this build has it or not.
    pub const ALL: [EngineName; 2] = [EngineName::EventDriven, EngineName::Turmoil];

    /// The engine's name on the command line and in a verdict.
    pub fn name(self) -> &'static str {
        match self {
            EngineName::EventDriven => "event-driven",
            EngineName::Turmoil => "turmoil",
        }
    }

    /// Returns true if this build has the engine.
    pub fn is_built(self) -> bool {
        match self {
            EngineName::EventDriven => true,
            EngineName::Turmoil => cfg!(feature = "turmoil"),
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An engine that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineError {
    /// No engine has this name.
    #[error("unknown engine `{0}`: use one of {known}", known = EngineName::ALL.map(EngineName::name).join(", "))]
    Unknown(String),
    /// The engine is a feature that this build does not have.
    #[error("this build has no engine `{0}`: build with --features {0}")]
    NotBuilt(EngineName),
}

/// Returns the engine of this name, if this build has it.
impl FromStr for EngineName {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self, EngineError> {
        match EngineName::ALL.into_iter().find(|engine| engine.name() == name) {
            Some(engine) if engine.is_built() => Ok(engine),
            Some(engine) => Err(EngineError::NotBuilt(engine)),
            None => Err(EngineError::Unknown(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_known_by_its_name_on_the_command_line_and_in_json() {
        for engine in EngineName::ALL {
            let expected = if engine.is_built() { Ok(engine) } else { Err(EngineError::NotBuilt(engine)) };
            assert_eq!(engine.name().parse(), expected);
            assert_eq!(serde_json::to_value(engine).unwrap(), engine.name());
        }
        assert_eq!(serde_json::from_str::<EngineName>("\"turmoil-net\"").unwrap(), EngineName::EventDriven);
        let error = "turmoi".parse::<EngineName>().unwrap_err();
        assert_eq!(error.to_string(), "unknown engine `turmoi`: use one of event-driven, turmoil");
    }
}
