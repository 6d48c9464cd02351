//! Rows of `profile_updates`: changes of profiles, for the users who share a room with their owner (Synapse 1.163.2, as
//! `tests/data/vectors_1.163.2.json` records it).
//!
//! A row does not hold the profile. The writers of `events` write it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "profile_updates";

/// A change of a profile, or of the rooms of its owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileUpdatesRow {
    /// The owner of the profile.
    pub user_id: String,
    /// `update`, `joined_room`, `left_room`, or an action of a newer version. Synapse reads any.
    pub action: String,
    /// The fields that changed, such as `displayname`, in no particular order; `None` if the action changes none.
    pub affected_fields: Option<Vec<String>>,
}

impl ProfileUpdatesRow {
    /// Parses `[user_id, action, [field, ...] | null]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id, action, affected_fields) = Deserialize::deserialize(row)?;
        Ok(ProfileUpdatesRow { user_id, action, affected_fields })
    }

    /// Writes `[user_id, action, [field, ...] | null]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id, &self.action, &self.affected_fields).serialize(to)
    }
}
