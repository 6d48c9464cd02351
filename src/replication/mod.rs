//! Moving rows between instances.
//!
//! A committed row leaves through a [`Streamer`], which reads it from its stream and puts lines into the outbox of
//! every [`Link`] that asked for them. It arrives in the [`CommandHandler`], which hands it to the [`Feed`] of its
//! (stream, writer); the feed finds gaps, catches up, takes the row in, moves the position and then tells the
//! [`Consumers`], of which [`Waiters`] are those who cannot go on before a position is reached.

pub mod backoff;
pub mod consumers;
pub mod feed;
pub mod handler;
#[cfg(test)]
mod interleavings;
pub mod link;
pub mod streamer;
pub mod syncing;
#[cfg(test)]
mod testing;
pub mod waiters;

pub use backoff::Backoff;
pub use consumers::{Consumer, Consumers};
pub use feed::Feed;
pub use handler::CommandHandler;
pub use link::{Link, Side};
pub use streamer::Streamer;
pub use syncing::UserSyncing;
pub use waiters::{WaitError, Waiters};
