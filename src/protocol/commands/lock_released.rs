//! `LOCK_RELEASED <json>`: a lock that others may wait for is free (Synapse #15791).
//!
//! Only a hint: whoever waits also asks the database from time to time, so a lost one costs time and nothing else.

use serde_json::Value;

use crate::protocol::arguments::{Arguments, unpack};
use crate::protocol::{ParseErrorKind, json};

/// A lock is free. The fields are whatever JSON the peer sent; Synapse sends strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReleased {
    /// Who held it.
    pub instance_name: Value,
    /// The kind of lock.
    pub lock_name: Value,
    /// What it locked.
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
