//! Rows of `push_rules`: users whose push rules have changed (Synapse 1.163.2, `streams/_base.py`).
//!
//! A row does not hold the rules, so only the newest row of each user matters.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "push_rules";

/// A user whose push rules have changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushRulesRow {
    /// The user.
    pub user_id: String,
}

impl PushRulesRow {
    /// Parses `[user_id]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id,) = Deserialize::deserialize(row)?;
        Ok(PushRulesRow { user_id })
    }

    /// Writes `[user_id]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id,).serialize(to)
    }
}
