//! The storm: a deterministic simulator that runs the unmodified stack on a seeded network with seeded faults, and asks the
//! judge.
//!
//! A [`plan`] comes from a seed. A [`runner`] sets it up as a `world` on an [engine](squall_netsim), injects its [`faults`], and returns a
//! [`verdict`]. The modules depend on each other in one direction only; `deployment` and `invalid` are below all others.

mod added_writer;
pub mod broker;
mod calm;
mod cancellations;
mod clock;
mod contents;
pub mod corpus;
mod database;
pub mod defects;
mod deployment;
pub mod failures;
pub mod faults;
mod input;
mod invalid;
pub(crate) mod memory;
mod odd_framing;
pub mod plan;
mod probe;
mod read_backs;
mod recorder;
mod requests;
mod rollout;
pub mod runner;
pub mod shrink;
pub mod soak;
mod strange_lines;
mod switch;
mod sync_clients;
#[cfg(test)]
mod testing;
mod topology;
pub mod verdict;
mod wire;
mod witness;
mod workload;
mod world;
