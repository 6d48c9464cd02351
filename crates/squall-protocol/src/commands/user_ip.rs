//! `USER_IP <user_id> <json>`: a user was seen at an address.
//!
//! The fields are any JSON that the peer sent. Synapse writes them to a table without checking their types, and unpacks
//! any five values, even the characters of a string.

use serde_json::Value;

use crate::arguments::{Arguments, unpack};
use crate::{ParseErrorKind, json};

/// A user was seen at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIp {
    /// The user.
    pub user_id: String,
    /// The access token used. A secret, unlike the rest.
    pub access_token: Value,
    /// The address.
    pub ip: Value,
    /// The client's user agent.
    pub user_agent: Value,
    /// The user's device, or null.
    pub device_id: Value,
    /// The time, in milliseconds since the epoch.
    pub last_seen: Value,
}

impl UserIp {
    pub(crate) fn parse(mut arguments: Arguments<'_>) -> Result<UserIp, ParseErrorKind> {
        let user_id = arguments.word("user id")?.into();
        let [access_token, ip, user_agent, device_id, last_seen] = unpack(arguments.rest("fields")?)?;
        Ok(UserIp { user_id, access_token, ip, user_agent, device_id, last_seen })
    }

    pub(crate) fn render(&self) -> String {
        let fields = [&self.access_token, &self.ip, &self.user_agent, &self.device_id, &self.last_seen];
        format!("{} {}", self.user_id, json::render(&fields.into_iter().cloned().collect()))
    }
}
