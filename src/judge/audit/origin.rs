//! One writer's part of one stream: what positions and tokens are about.

use std::fmt;

use serde::Serialize;

use crate::protocol::{InstanceName, Position, Rdata, StreamName};

/// Streams that are kept in memory, and begin again with the process that writes them.
const IN_MEMORY: [&str; 3] = ["typing", "federation", "presence_federation"];

/// One writer of one stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// The stream.
    pub stream: StreamName,
    /// The instance that writes it.
    pub writer: InstanceName,
}

impl Origin {
    /// Whether the stream is kept in memory, so that a new process of the writer counts from the beginning.
    pub fn is_in_memory(&self) -> bool {
        IN_MEMORY.contains(&self.stream.as_str())
    }
}

impl From<&Rdata> for Origin {
    fn from(rdata: &Rdata) -> Self {
        Origin { stream: rdata.stream.clone(), writer: rdata.writer.clone() }
    }
}

impl From<&Position> for Origin {
    fn from(position: &Position) -> Self {
        Origin { stream: position.stream.clone(), writer: position.writer.clone() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.stream, self.writer)
    }
}
