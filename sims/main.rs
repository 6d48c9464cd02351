//! The storm's suites: one file for each property, named after it.
//!
//! `SQUALL_SEED=17 cargo test --test sims` runs one seed of each suite, `SQUALL_SEEDS=0..1000` runs a range.

mod caches_fresh_after_wait;
mod corpus;
mod cross_check;
mod determinism;
mod memory;
#[path = "../tests/support/memory.rs"]
mod memory_of_thread;
mod no_missed_rows;
mod no_tight_reconnect;
mod suite;
mod swarm;
mod user_syncs_cleared;

#[global_allocator]
static COUNTING: memory_of_thread::Counting = memory_of_thread::Counting;
