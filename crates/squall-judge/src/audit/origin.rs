//! One writer's part of one stream: the thing that positions and tokens belong to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::streams;
use squall_protocol::{InstanceName, Position, Rdata, StreamName};

/// The writers of each stream, as far as they are known. Any instance may write a stream that is not listed.
pub type Writers = BTreeMap<StreamName, BTreeSet<InstanceName>>;

/// One writer of one stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// The stream.
    pub stream: StreamName,
    /// The instance that writes it.
    pub writer: InstanceName,
}

impl Origin {
    /// Returns true if the stream is kept in memory, so that a new process of the writer begins again.
    pub fn is_in_memory(&self) -> bool {
        streams::IN_MEMORY.contains(&self.stream.as_str())
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
