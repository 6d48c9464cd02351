//! Rows of `groups`: changes of communities (Synapse 1.19.1, `streams/_base.py`). The stream is gone since
//! Synapse #12900.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::rows::Json;

/// The stream's name on the wire.
pub const NAME: &str = "groups";

/// A change of a community for one user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupsRow {
    /// The community, whose id begins with `+`.
    pub group_id: String,
    /// The user.
    pub user_id: String,
    /// The kind of change, such as `membership`.
    pub kind: String,
    /// Its content, an object.
    pub content: Json,
}

impl GroupsRow {
    /// Parses `[group_id, user_id, type, {..}]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (group_id, user_id, kind, content): (_, _, _, Map<String, Value>) = Deserialize::deserialize(row)?;
        Ok(GroupsRow { group_id, user_id, kind, content: Json(content.into()) })
    }

    /// Writes `[group_id, user_id, type, {..}]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.group_id, &self.user_id, &self.kind, &self.content).serialize(to)
    }
}
