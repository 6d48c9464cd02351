//! The limits of an instance: the lengths of its queues, the sizes of its answers, and the times for which it remembers.
//!
//! Each limit bounds the memory that one peer can take. Beyond it an instance does more work (it fetches rows again, or
//! loses a connection) and no row. [`Limits::default`] has the amounts of production, which `docs/limits.md` explains.
//! The storm draws smaller ones, because no run of a minute reaches those of production.
//!
//! A limit that both ends of a connection must agree on, such as the length of a line, is a constant of the protocol.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use squall_protocol::rows::ROWS_TARGET;

/// Largest number of commands in an outbox. A peer with more is dropped; it reconnects and catches up from the source.
pub const COMMANDS_QUEUED_MAX: usize = 10_000;

/// Largest number of queued rows and positions of one follower. A longer queue is discarded and replaced by one catch-up.
pub const ITEMS_QUEUED_MAX: usize = 10_000;

/// Largest number of rows held for one token. A longer batch is discarded and replaced by one catch-up from the source,
/// because a batch that never ends must not be held for ever.
pub const BATCH_ROWS_MAX: usize = 10_000;

/// Largest memory, in bytes, of the rows held for one token that has yet to arrive, and of the rows in the queue of one
/// follower. Beyond it they are discarded and replaced by one catch-up from the source.
pub const ROWS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Number of payloads published to a broker after which its replies are awaited.
pub const UNANSWERED_MAX: usize = 1_000;

/// Largest number of open connections of the line protocol. Each instance of a deployment has one.
pub const TCP_CONNECTIONS_MAX: usize = 2_000;

/// Largest number of open HTTP connections. Squall's client opens one for each request.
pub const HTTP_CONNECTIONS_MAX: usize = 2_000;

/// Largest number of replies that are kept for repeated requests. The oldest are dropped first; the database still
/// recognises their requests.
pub const KEPT_MAX: usize = 1_000;

/// Largest number of bytes of the kept replies together, as far as they can be counted. A reply has a few hundred.
pub const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Time for which the reply of a request that succeeded is kept, in milliseconds: half an hour, as in Synapse.
pub const KEPT_MS: u64 = 30 * 60 * 1_000;

/// Largest number of values in each cache of the database. The least recently used one is dropped first.
pub const CACHED_MAX: usize = 10_000;

/// Time for which a room without typing users is kept, in milliseconds, so that followers receive its empty row (Synapse
/// #15332).
pub const TYPING_KEPT_MS: u64 = 600_000;

/// The limits of one instance. All instances of a deployment have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest number of commands that wait for one peer. Default: [`COMMANDS_QUEUED_MAX`].
    pub commands_queued_max: usize,
    /// Largest number of rows and positions that wait for one stream follower. Default: [`ITEMS_QUEUED_MAX`].
    pub items_queued_max: usize,
    /// Largest number of rows held for one token that has yet to arrive. Default: [`BATCH_ROWS_MAX`].
    pub batch_rows_max: usize,
    /// Number of rows that one query for rows of a stream aims to return; at least 2. Default: [`ROWS_TARGET`].
    pub rows_per_query: usize,
    /// Number of payloads that are published before the broker's replies are awaited. Default: [`UNANSWERED_MAX`].
    pub unanswered_max: usize,
    /// Largest number of open connections of the line protocol. Default: [`TCP_CONNECTIONS_MAX`].
    pub tcp_connections_max: usize,
    /// Largest number of open HTTP connections. Default: [`HTTP_CONNECTIONS_MAX`].
    pub http_connections_max: usize,
    /// Largest number of replies kept for repeated requests. Default: [`KEPT_MAX`].
    pub answers_kept_max: usize,
    /// Largest number of bytes of the kept replies. Default: [`KEPT_BYTES_MAX`].
    pub answers_kept_bytes_max: usize,
    /// Time for which a reply is kept for repeated requests, in milliseconds. Default: [`KEPT_MS`].
    pub answers_kept_ms: u64,
    /// Largest number of values in each cache of the database. Default: [`CACHED_MAX`].
    pub cached_max: usize,
    /// Time for which a room without typing users is kept, in milliseconds. Default: [`TYPING_KEPT_MS`].
    pub typing_kept_ms: u64,
}

impl Default for Limits {
    /// Returns the limits of production.
    fn default() -> Self {
        Limits {
            commands_queued_max: COMMANDS_QUEUED_MAX,
            items_queued_max: ITEMS_QUEUED_MAX,
            batch_rows_max: BATCH_ROWS_MAX,
            rows_per_query: ROWS_TARGET,
            unanswered_max: UNANSWERED_MAX,
            tcp_connections_max: TCP_CONNECTIONS_MAX,
            http_connections_max: HTTP_CONNECTIONS_MAX,
            answers_kept_max: KEPT_MAX,
            answers_kept_bytes_max: KEPT_BYTES_MAX,
            answers_kept_ms: KEPT_MS,
            cached_max: CACHED_MAX,
            typing_kept_ms: TYPING_KEPT_MS,
        }
    }
}

/// A limit that an instance has hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LimitHit {
    /// A peer was dropped, because too many commands waited for it.
    OutboxOverflowed,
    /// The queue of a stream follower was discarded.
    FollowerQueueOverflowed,
    /// The rows of one token were discarded.
    BatchOverflowed,
    /// A publisher waited for replies with more to publish.
    RepliesAwaited,
    /// A reply was dropped, because there were too many, or too many bytes of them.
    AnswerEvicted,
    /// A reply was dropped, because it was too old.
    AnswerExpired,
    /// A cached value was dropped, because there were too many.
    CachedValueEvicted,
    /// A room without typing users was dropped.
    TypingRoomDropped,
    /// A connection was refused, because there were too many.
    ConnectionRefused,
}

impl LimitHit {
    /// Every limit that can be hit.
    pub const ALL: &'static [LimitHit] = LimitHit::VARIANTS;

    /// Returns the name in verdicts.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
