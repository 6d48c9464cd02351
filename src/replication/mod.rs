//! Replication of rows between instances.
//!
//! On the writer, a [`Streamer`] reads committed rows from their stream and puts them into the outbox of every
//! [`Connection`] that sent `REPLICATE`. On a peer, the [`CommandHandler`] hands each row to the `StreamFollower` of
//! its (stream, writer). The follower detects gaps, catches up, applies the row, moves the position, and then notifies
//! the [`Consumers`]. One of the consumers is [`Waiters`], which wakes callers that wait for a position.

pub mod backoff;
mod batches;
pub mod connection;
mod consumers;
mod followers;
pub mod handler;
#[cfg(test)]
mod interleavings;
pub mod stream_follower;
pub mod streamer;
mod syncing;
#[cfg(test)]
mod testing;
pub mod unknown_writers;
mod waiters;

pub use backoff::Backoff;
pub use connection::Connection;
pub use consumers::{Consumer, Consumers};
pub use handler::CommandHandler;
use stream_follower::StreamFollower;
pub use streamer::Streamer;
pub use syncing::UserSyncing;
pub use unknown_writers::UnknownWriters;
pub use waiters::{WaitError, Waiters};
