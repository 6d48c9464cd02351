//! The protocol against the inputs and outputs of Synapse's own classes, and against arbitrary input.

mod conformance;
mod dialect;
mod lines;
#[path = "../support/pieces.rs"]
mod pieces;
mod properties;
mod row_shapes;
mod rows;
mod vectors;
