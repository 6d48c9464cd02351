//! The protocol against what Synapse's own classes read and write, and against arbitrary input.

mod conformance;
mod dialect;
mod lines;
mod properties;
mod rows;
mod vectors;
