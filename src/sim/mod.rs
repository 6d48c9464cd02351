//! The storm: a deterministic simulator that runs the stack, unmodified, under seeded faults.

pub mod database;
pub mod witness;
