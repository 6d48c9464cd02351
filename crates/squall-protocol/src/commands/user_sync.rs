//! `USER_SYNC <instance_id> <user_id> <device_id|None> start|end <last_sync_ms>`: a user started or stopped syncing.
//!
//! The process is named by an id that it draws, not by its name or its connection (Synapse #7128). So the syncs of a crashed
//! process expire by themselves, and are not mistaken for those of its successor.
//!
//! Over Redis only its silence shows that a process is gone, and a live process may be silent, too. So the ids of Squall's
//! own processes promise a sign of life, which costs other implementations nothing: see [`SIGNS_OF_LIFE`].

use std::time::Duration;

use crate::ParseErrorKind;
use crate::arguments::{Arguments, integer};
use crate::excerpt::excerpt;

/// The text for no device. A device of this name therefore arrives as `None`.
const NO_DEVICE: &str = "None";
const START: &str = "start";
const END: &str = "end";

/// The prefix of the id of a process that gives signs of life. While any user syncs through it, or has stopped without a
/// `USER_SYNC` about it, it sends a `USER_SYNC` at least every [`SIGN_OF_LIFE_INTERVAL`]. A process that is silent for much
/// longer is gone, or cut off. Synapse draws no such ids, and does not interpret ids.
pub const SIGNS_OF_LIFE: &str = "squall.";
/// The longest interval between two commands of such a process.
pub const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(3);

/// A user started or stopped syncing through an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSync {
    /// The id that the process which serves the user drew, with the prefix [`SIGNS_OF_LIFE`] if it gives them.
    pub instance_id: String,
    /// The user.
    pub user_id: String,
    /// The user's device, if known (Synapse #16172).
    pub device_id: Option<String>,
    /// True if the user started, false if the user stopped.
    pub is_syncing: bool,
    /// The time of the user's last sync, in milliseconds since the epoch.
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

    /// Parses `<instance_id> <user_id> start|end <last_sync_ms>`, the form before Synapse #16172.
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
