//! The protocol against the inputs and outputs of Synapse's own classes, and against arbitrary input.

mod conformance;
mod dialect;
mod lines;
mod properties;
mod rows;
mod vectors;
