//! Users who are syncing, and their presence.
//!
//! Every instance that serves syncs counts them ([`UserSyncs`]) and announces each start and each end to the presence
//! writer: the one instance that writes the `presence` stream. The presence writer keeps the presence of every user
//! ([`PresenceHandler`]). It records the syncing devices of every process (`processes`), keeps a state for each device
//! (`devices`), and derives each user's presence from them and the clock ([`timers`]). Each change is a row of the stream,
//! which all other instances apply.
//!
//! Timers that concern federation are left out.

mod announcements;
mod config;
mod connections;
mod deadlines;
mod devices;
pub mod handler;
mod processes;
mod state;
mod states;
#[cfg(test)]
mod testing;
pub mod timers;
pub mod user_syncs;

pub use config::{PresenceConfig, STOP_DELAY, SWEEP_INTERVAL};
pub use connections::PresenceConnections;
pub use handler::{PersistPresence, PresenceError, PresenceHandler, SetState};
pub use processes::{PROCESSES_MAX, SYNCING_MAX, SYNCING_OF_USER_MAX};
pub use state::{PresenceState, UserPresence};
pub use states::OFFLINE_KEPT_MAX;
pub use user_syncs::{Syncing, UserSyncs};
