//! `USER_SYNC <instance_id> <user_id> <device_id|None> start|end <last_sync_ms>`: a user started or stopped syncing.
//!
//! The process is named by an id that it draws, not by its name or its connection (Synapse #7128): what a crashed
//! process said expires by itself and is not taken for its successor's.
//!
//! Over Redis nothing but its silence shows that a process is gone, and one that lives may be silent, too. So the ids of
//! Squall's own processes carry a promise, which costs other implementations nothing: see [`SIGNS_OF_LIFE`].

use std::time::Duration;

use crate::protocol::ParseErrorKind;
use crate::protocol::arguments::{Arguments, integer};
use crate::protocol::error::excerpt;

/// What stands for no device. A device of this very name therefore arrives as none.
const NO_DEVICE: &str = "None";
const START: &str = "start";
const END: &str = "end";

/// How the id begins of a process that gives signs of life: as long as any user syncs through it, or is not yet said to
/// have stopped, it says a `USER_SYNC` at least every [`SIGN_OF_LIFE_INTERVAL`]. Who is silent for much longer is gone,
/// or cannot be heard. Synapse draws no such id, and looks into none.
pub const SIGNS_OF_LIFE: &str = "squall.";
/// How often such a process says something, at least.
pub const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(3);

/// A user started or stopped syncing through an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSync {
    /// The process that serves the user: an id that it drew, behind [`SIGNS_OF_LIFE`] if it gives them.
    pub instance_id: String,
    /// The user.
    pub user_id: String,
    /// The user's device, if known (Synapse #16172).
    pub device_id: Option<String>,
    /// Started, or stopped.
    pub is_syncing: bool,
    /// When the user last synced, in milliseconds since the epoch.
    pub last_sync_ms: i64,
}

impl UserSync {
    pub(crate) fn parse(mut arguments: Arguments<'_>) -> Result<UserSync, ParseErrorKind> {
        Ok(UserSync {
            instance_id: arguments.word("instance id")?.into(),
            user_id: arguments.word("user id")?.into(),
            device_id: match arguments.word("device id")? {
                NO_DEVICE => None,
                device => Some(device.into()),
            },
            is_syncing: is_syncing(arguments.word("state")?)?,
            last_sync_ms: integer("last sync", arguments.rest("last sync")?)?,
        })
    }

    /// `<instance_id> <user_id> start|end <last_sync_ms>`, as before Synapse #16172.
    pub(crate) fn parse_1_19(mut arguments: Arguments<'_>) -> Result<UserSync, ParseErrorKind> {
        Ok(UserSync {
            instance_id: arguments.word("instance id")?.into(),
            user_id: arguments.word("user id")?.into(),
            device_id: None,
            is_syncing: is_syncing(arguments.word("state")?)?,
            last_sync_ms: integer("last sync", arguments.rest("last sync")?)?,
        })
    }

    pub(crate) fn render(&self) -> String {
        let UserSync { instance_id, user_id, device_id, is_syncing, last_sync_ms } = self;
        let device_id = device_id.as_deref().unwrap_or(NO_DEVICE);
        let state = if *is_syncing { START } else { END };
        format!("{instance_id} {user_id} {device_id} {state} {last_sync_ms}")
    }
}

fn is_syncing(state: &str) -> Result<bool, ParseErrorKind> {
    match state {
        START => Ok(true),
        END => Ok(false),
        _ => Err(ParseErrorKind::BadState(excerpt(state))),
    }
}
