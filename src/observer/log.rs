//! Writes an instance's reports to the log.
//!
//! Peers decide how many reports there are and what some of their texts are. So the lines about each peer are limited in
//! number, texts are cut, and control characters are escaped.

use std::fmt::Display;
use std::time::Duration;

use super::limiter::Limiter;
use super::{InstanceEvent, Observer};
use crate::errors::Causes;
use squall_env::{TaskKind, TaskObserver};
use squall_protocol::Quoted;

/// Logs through `tracing`: problems as warnings, the rest at lower levels.
#[derive(Debug, Default)]
pub struct Log(Limiter);

impl Log {
    /// Counts a line of this kind about a peer or a stream. Returns true if it is to be written.
    fn writes(&self, kind: &'static str, subject: &dyn Display) -> bool {
        let subject = Quoted(subject).to_string();
        let Some(left_out) = self.0.count(kind, &subject) else { return false };
        if left_out > 0 {
            tracing::warn!(left_out, subject, "lines left out: {kind}");
        }
        true
    }
}

impl TaskObserver for Log {
    fn task_ended(&self, kind: TaskKind, took: Duration) {
        tracing::trace!(%kind, ?took, "task ended");
    }
}

impl Observer for Log {
    fn event(&self, event: InstanceEvent<'_>) {
        let limited: Option<(&'static str, &dyn Display)> = match &event {
            InstanceEvent::CatchUp { writer, .. } => Some(("catch-up", writer)),
            InstanceEvent::Streaming { stream, .. } => Some(("streaming", stream)),
            InstanceEvent::Connection { peer, .. } => Some(("connection", peer)),
            InstanceEvent::Row { stream, .. } => Some(("row", stream)),
            InstanceEvent::ForeignDatabase { stream, .. } => Some(("write refused", stream)),
            InstanceEvent::NotAllocated { stream, .. } => Some(("token ignored", stream)),
            InstanceEvent::NewerCommand { peer, .. } => Some(("newer command", peer)),
            InstanceEvent::AnnouncementIgnored { .. } => Some(("announcement ignored", &"syncing users")),
            InstanceEvent::UnknownStream { .. }
            | InstanceEvent::UnknownWriter { .. }
            | InstanceEvent::UnclaimedPosition { .. } => None,
        };
        if limited.is_some_and(|(kind, subject)| !self.writes(kind, subject)) {
            return;
        }
        match event {
            InstanceEvent::CatchUp { stream, writer, error } => {
                tracing::warn!(%stream, %writer, error = %Quoted(error), "catch-up failed; retrying");
            }
            InstanceEvent::Streaming { stream, error } => {
                tracing::warn!(%stream, error = %Quoted(error), "cannot read rows to send; retrying");
            }
            InstanceEvent::Connection { peer, error } => {
                tracing::warn!(peer = %Quoted(peer), error = %Quoted(Causes(error)), "connection ended");
            }
            InstanceEvent::Row { stream, error } => {
                tracing::warn!(%stream, error = %Quoted(error), "unknown shape of a row; fetching it from the source");
            }
            InstanceEvent::ForeignDatabase { stream, error } => tracing::error!(%stream, %error, "write refused"),
            InstanceEvent::NotAllocated { stream, writer, token } => {
                tracing::error!(
                    %stream, %writer, %token,
                    "a token that its writer cannot have is ignored: something else publishes under the writer's name, or \
                     the writer has another database"
                );
            }
            InstanceEvent::AnnouncementIgnored { process } => {
                tracing::warn!(process = %Quoted(process), "a syncing user is ignored: too many are announced");
            }
            // One for each row of the stream, and the operator can do nothing about it here.
            InstanceEvent::UnknownStream { stream } => {
                tracing::debug!(stream = %Quoted(stream), "unknown stream; row ignored");
            }
            InstanceEvent::NewerCommand { peer, newer } => {
                let (peer, command) = (Quoted(peer), Quoted(newer.name()));
                tracing::warn!(%peer, %command, "a peer of a newer version: {}", Quoted(newer));
            }
            InstanceEvent::UnknownWriter { stream, writer, is_first } if is_first => {
                tracing::warn!(
                    %stream, writer = %Quoted(writer),
                    "rows of a writer that the configuration does not name are ignored; restart with the configuration \
                     that names it"
                );
            }
            InstanceEvent::UnknownWriter { stream, writer, .. } => {
                tracing::trace!(%stream, writer = %Quoted(writer), "unknown writer; row ignored");
            }
            InstanceEvent::UnclaimedPosition { stream, writer } => {
                tracing::warn!(
                    %stream, %writer,
                    "the database has the position of a writer that the configuration does not name; if it runs, start \
                     this instance with its configuration"
                );
            }
        }
    }

    fn set_up(&self, target: &str) {
        // A field called `target` would be the second one of this name in JSON.
        tracing::info!(peer = %Quoted(target), "connection set up");
    }

    fn process_expired(&self, users: usize) {
        tracing::warn!(users, "processes that served users were silent past their expiry");
    }

    fn unwritable(&self, reason: Option<&dyn Display>) {
        // On a disk with hardly any space left, one write may succeed and the next one fail.
        if !self.writes("unwritable", &"the database") {
            return;
        }
        match reason {
            Some(reason) => tracing::error!("{reason}"),
            None => tracing::warn!("the database can be written again"),
        }
    }

    fn unknown_cache(&self, name: &str) {
        tracing::debug!(name = %Quoted(name), "invalidation of an unknown cache ignored");
    }
}
