//! The replication protocol: commands and lines. Pure: no I/O, no clock.

pub mod names;

pub use names::{InstanceName, MASTER, StreamName, Token};
