//! Classes of violations, by their cost.

use serde::Serialize;
use strum::{Display, EnumIter};

/// The cost of a violation.
///
/// The header of each rule gives the class of each of its violations, and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Display, EnumIter)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// Rows, messages or syncs may be lost.
    Loss,
    /// Instances do work that nothing needs, or reconnect.
    Load,
    /// Synapse does it in every deployment, by design or for years, and in exactly these circumstances.
    Habit,
}

impl Class {
    /// Returns true if the violation is a reason to act. A habit counts only if the operator asks for it.
    pub fn is_reason_to_act(self) -> bool {
        self != Class::Habit
    }
}
