//! Rows of `user_signature`: users who have signed keys of others (Synapse 1.19.1, `streams/_base.py`). They are rows of
//! `device_lists` since Synapse #14833.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "user_signature";

/// A user who has signed keys of other users.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserSignatureRow {
    /// The user.
    pub user_id: String,
}

impl UserSignatureRow {
    /// Parses `[user_id]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id,) = Deserialize::deserialize(row)?;
        Ok(UserSignatureRow { user_id })
    }

    /// Writes `[user_id]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id,).serialize(to)
    }
}
