//! The worked examples of `docs/extending.md` and `docs/network.md`.
//!
//! The scenario and the simulated network are compiled and tested here. The invariant, the fault and the stream are added to
//! a copy of the sources, and tested there. The documents must quote every example word for word.

#[path = "../../docs/examples/network.rs"]
mod network;
#[path = "../../docs/examples/scenario.rs"]
mod scenario;

mod added;
mod quotes;
