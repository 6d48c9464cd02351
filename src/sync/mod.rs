//! `/sync`: the new rows for a client, on any instance.
//!
//! Here a user sees a row, or misses it. A client sends the token of its last answer and receives everything that was
//! committed since; the token of the new answer says up to where that is. The order of the steps makes answers complete:
//!
//! 1. The client's token may come from an instance that is further than this one. This instance waits until it has caught
//!    up, but not for long. After that, a stream that is still behind is left out of the answer, and its part of the token
//!    does not move.
//! 2. It takes the positions of all streams, each per writer. No row at or below a position can still commit (see
//!    [`IdGenerator`](crate::store::IdGenerator)), and a slow writer does not hold back the rows of others.
//! 3. Then it reads the database, from the client's token up to those positions. An *inferred* position is enough here,
//!    unlike for the rows that replication carries: a row need not have arrived, it only has to be committed.
//! 4. If there is nothing new, it waits until a position moves, and begins again from the positions it has read.
//!
//! So the answer holds everything in `(since, next]` and nothing else, on any instance. (Synapse #14158: a token ahead of
//! the rows that were read loses rows.)

mod handler;
mod notifier;
mod read;
mod response;
mod typing;

pub use crate::store::events::RoomEvent;
pub use handler::{SINCE_WAIT_MAX, SyncHandler};
pub use notifier::Notifier;
pub use response::{News, SyncError, SyncResponse};
