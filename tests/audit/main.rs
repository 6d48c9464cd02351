//! Recordings of real Synapse: what the audit makes of them, and what the stack does when it hears them.

mod findings;
mod follower;
mod recording;
mod replay;
#[path = "../support/rows.rs"]
mod rows;
mod written;
