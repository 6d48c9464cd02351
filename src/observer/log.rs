//! Writes an instance's reports to the log.
//!
//! Peers decide how many reports there are and what some of their texts are. So the lines about each peer are limited in
//! number, texts are cut, and control characters are escaped.

use std::fmt::Display;
use std::time::Duration;

use super::limiter::Limiter;
use super::{InstanceEvent, Observer};
use crate::errors::{Causes, Shown};
use squall_env::{TaskKind, TaskObserver};

/// Logs through `tracing`: problems as warnings, the rest at lower levels.
#[derive(Debug, Default)]
pub struct Log(Limiter);

impl Log {
    /// Counts a line of this kind about a peer or a stream. Returns true if it is to be written.
    fn writes(&self, kind: &'static str, subject: &(impl Display + ?Sized)) -> bool {
        let subject = Shown(subject).to_string();
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
        match event {
            InstanceEvent::CatchUp { stream, writer, error } if self.writes("catch-up", writer) => {
                tracing::warn!(%stream, %writer, error = %Shown(error), "catch-up failed; retrying");
            }
            InstanceEvent::Streaming { stream, error } if self.writes("streaming", stream) => {
                tracing::warn!(%stream, error = %Shown(error), "cannot read rows to send; retrying");
            }
            InstanceEvent::Connection { peer, error } if self.writes("connection", peer) => {
                tracing::warn!(peer = %Shown(peer), error = %Shown(Causes(error)), "connection ended");
            }
            InstanceEvent::Row { stream, error } if self.writes("row", stream) => {
                tracing::warn!(%stream, error = %Shown(error), "unknown shape of a row; fetching it from the source");
            }
            InstanceEvent::ForeignDatabase { stream, error } if self.writes("database", stream) => {
                tracing::error!(%stream, %error, "write refused");
            }
            // Further lines like those that were just written.
            InstanceEvent::CatchUp { .. }
            | InstanceEvent::Streaming { .. }
            | InstanceEvent::Connection { .. }
            | InstanceEvent::Row { .. }
            | InstanceEvent::ForeignDatabase { .. } => {}
            InstanceEvent::NotAllocated { stream, writer, token, is_first: true } => {
                tracing::error!(
                    %stream, %writer, %token,
                    "a token that the database has not allocated is ignored: something else publishes under the writer's \
                     name, or the writer has another database"
                );
            }
            InstanceEvent::NotAllocated { stream, writer, token, .. } => {
                tracing::trace!(%stream, %writer, %token, "token that is not allocated ignored");
            }
            // One for each row of the stream, and the operator can do nothing about it here.
            InstanceEvent::UnknownStream { stream } => {
                tracing::debug!(stream = %Shown(stream), "unknown stream; row ignored");
            }
            InstanceEvent::NewerCommand { peer, newer } if self.writes("newer command", peer) => {
                let (peer, command) = (Shown(peer), Shown(newer.name()));
                tracing::warn!(%peer, %command, "a peer of a newer version: {}", Shown(newer));
            }
            InstanceEvent::NewerCommand { .. } => {}
            InstanceEvent::UnknownWriter { stream, writer, is_first } if is_first => {
                tracing::warn!(
                    %stream, writer = %Shown(writer),
                    "rows of a writer that the configuration does not name are ignored; restart with the configuration \
                     that names it"
                );
            }
            InstanceEvent::UnknownWriter { stream, writer, .. } => {
                tracing::trace!(%stream, writer = %Shown(writer), "unknown writer; row ignored");
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
        tracing::info!(peer = %Shown(target), "connection set up");
    }

    fn process_expired(&self, users: usize) {
        tracing::warn!(users, "processes that served users were silent past their expiry");
    }

    fn unknown_cache(&self, name: &str) {
        tracing::debug!(name = %Shown(name), "invalidation of an unknown cache ignored");
    }
}
