//! Who is syncing, and what becomes of their presence.
//!
//! Every instance that serves syncs counts them ([`UserSyncs`]) and tells the one instance that writes the `presence`
//! stream who began and who stopped. That one keeps the presence of every user ([`PresenceHandler`]): it knows from
//! [`processes`] who is syncing anywhere, and from [`timers`] what follows from that and from the clock. Each change is
//! a row of the stream, from which all other instances take the states in.
//!
//! Synapse's `busy` and its state for each device are left out: a user has one presence, and the last word of any of
//! their devices counts (as before Synapse #16066). Timers that concern federation are left out too.

mod announcements;
mod connections;
pub mod deadlines;
pub mod handler;
pub mod processes;
pub mod state;
#[cfg(test)]
mod testing;
pub mod timers;
pub mod user_syncs;

pub use connections::PresenceConnections;
pub use handler::{PersistPresence, PresenceError, PresenceHandler, SetState};
pub use state::{PresenceState, UserPresence};
pub use user_syncs::{Syncing, UserSyncs};
