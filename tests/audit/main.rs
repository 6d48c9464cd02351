//! Recordings of real Synapse, given to the audit and to the stack.

mod defects;
mod documented;
mod findings;
mod follower;
mod live;
mod recording;
mod replay;
#[path = "../support/rows.rs"]
mod rows;
mod written;
