//! `LOCK_RELEASED <json>`: a lock was released (Synapse #15791).
//!
//! Only a hint: a waiting instance also polls the database, so a lost one only costs time.

use serde_json::Value;

use crate::arguments::{Arguments, unpack};
use crate::{ParseErrorKind, json};

/// A lock was released. The fields are any JSON that the peer sent; Synapse sends strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReleased {
    /// The instance that held it.
    pub instance_name: Value,
    /// The kind of lock.
    pub lock_name: Value,
    /// The key that it locked.
    pub lock_key: Value,
}

impl LockReleased {
    pub(crate) fn parse(mut arguments: Arguments<'_>) -> Result<LockReleased, ParseErrorKind> {
        let [instance_name, lock_name, lock_key] = unpack(arguments.rest("fields")?)?;
        Ok(LockReleased { instance_name, lock_name, lock_key })
    }

    pub(crate) fn render(&self) -> String {
        let fields = [&self.instance_name, &self.lock_name, &self.lock_key];
        json::render(&fields.into_iter().cloned().collect())
    }
}
