//! Writers announce.
//!
//! The instance that sends `RDATA` or `POSITION` for a stream is a configured writer of it, and the rows are its own. A
//! stream that was moved to another instance while the old one still announced it is followed by no instance: followers
//! connect to the new writer, which says nothing, and the positions of the old one say nothing of the rows
//! (Synapse #20080). A writer that also sends the rows of other writers makes them appear twice and out of order
//! (Synapse #8496).
//!
//! No false alarm: the names are those of the deployment's configuration, which does not change while it runs, and of the
//! end that wrote the line. That each writer does announce is left to `no_missed_rows`: without it no follower converges.

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Line, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::{InstanceName, StreamName};

/// A line about rows that the instance does not write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// An instance wrote a line about rows of another writer, or of a stream that it is not configured to write.
    #[error("{instance} wrote {command} for {writer}'s rows of {stream}")]
    NotItsWriter { instance: InstanceName, stream: StreamName, writer: InstanceName, command: &'static str },
}

/// Checks the sender of every row and position written to a connection.
#[derive(Default)]
pub struct WritersAnnounce {
    judged: u64,
}

impl Invariant for WritersAnnounce {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Wrote];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        let Observation::Wrote { instance, line, .. } = observation else { return Ok(()) };
        let (Line::Rdata { stream, writer, .. } | Line::Position { stream, writer, .. }) = line else { return Ok(()) };
        self.judged += 1;
        if writer == instance && scene.names.is_configured(scene.source()) {
            return Ok(());
        }
        Err(Violation::NotItsWriter {
            instance: instance.clone(),
            stream: stream.clone(),
            writer: writer.clone(),
            command: line.command(),
        })
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use crate::observation::Role;
    use squall_protocol::Delivery;
    use squall_protocol::Token;

    fn is_well(instance: &str, stream: &str, writer: &str) -> bool {
        let topology = Topology::new(["master".into()]).with_stream("typing", Delivery::Memory, ["writer".into()]);
        let mut judge = Alone::<WritersAnnounce>::new(&topology);
        let stream = StreamName::from(stream);
        let writer = InstanceName::from(writer);
        let lines = [
            Line::Rdata { stream: stream.clone(), writer: writer.clone(), token: Some(Token(1)) },
            Line::Position { stream, writer, prev: Token(1), new: Token(1) },
        ];
        let verdicts = lines.map(|line| {
            let wrote = Observation::Wrote { instance: instance.into(), attempt: 1, role: Role::Server, line };
            judge.observe(SimTime(0), &wrote).is_ok()
        });
        assert_eq!(verdicts[0], verdicts[1], "rows and positions alike");
        verdicts[0]
    }

    #[test]
    fn a_configured_writer_announces_its_own_rows() {
        assert!(is_well("writer", "typing", "writer"));
    }

    #[test]
    fn an_instance_announces_no_other_rows() {
        assert!(!is_well("master", "typing", "writer"), "the rows are another writer's");
        assert!(!is_well("master", "typing", "master"), "it does not write the stream");
        assert!(!is_well("writer", "events", "writer"), "the stream does not exist");
    }
}
