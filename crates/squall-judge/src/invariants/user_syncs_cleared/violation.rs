//! The evidence that a user's presence is wrong.

use serde::Serialize;
use thiserror::Error;

use squall_protocol::InstanceName;

/// A wrong presence, or a stop that leaves one behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A process was stopped gracefully and did not clear its users' syncs.
    #[error("{instance} was stopped and did not write CLEAR_USER_SYNC {instance_id}")]
    NotCleared { instance: InstanceName, instance_id: String },
    /// A user who was syncing went offline, although the presence writer knew of the sync or should have.
    #[error(
        "{user} went offline while syncing on {instance}, which had announced that {announced_ms} ms ago \
         and last repeated it {silent_ms} ms ago"
    )]
    OfflineWhileSyncing { user: String, instance: InstanceName, announced_ms: u64, silent_ms: u64 },
    /// A user who does not sync is not offline, long into the calm.
    #[error("{user} does not sync and is not offline")]
    StillOnline { user: String },
    /// A user who syncs is offline, long into the calm.
    #[error("{user} syncs and is offline")]
    StillOffline { user: String },
}
