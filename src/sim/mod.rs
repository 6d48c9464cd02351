//! The storm: a deterministic simulator that runs the stack on a seeded network with seeded faults.

pub mod plan;
