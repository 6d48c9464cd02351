//! Writers announce.
//!
//! Over TCP whoever speaks of rows, by `RDATA` or `POSITION`, is their writer, and is configured to be. A stream that was
//! moved to another instance and still announced by the old one is followed by nobody: those who connect to its writer
//! hear nothing of it, and what the old one says of it says nothing of what was written (Synapse #20080). A writer that
//! also sends what others have written makes their rows appear twice, and out of order (Synapse #8496).
//!
//! No false alarm: the names are those of the deployment's configuration, which does not change while it runs, and of the
//! end that wrote the line. That every configured writer does announce is judged elsewhere: nobody's view of it would
//! converge.

use super::Invariant;
use crate::judge::observation::{Line, Moment, Observation};
use crate::judge::topology::Topology;
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;

/// Judges every row and position that is written to a connection by who writes it.
pub struct WritersAnnounce {
    topology: Topology,
    judged: u64,
}

impl WritersAnnounce {
    /// Knows from `topology` who writes what.
    pub fn new(topology: &Topology) -> Self {
        WritersAnnounce { topology: topology.clone(), judged: 0 }
    }
}

impl Invariant for WritersAnnounce {
    fn name(&self) -> &'static str {
        "writers_announce"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        let Observation::Wrote { instance, line, .. } = observation else { return Ok(()) };
        let (Line::Rdata { stream, writer, .. } | Line::Position { stream, writer, .. }) = line else { return Ok(()) };
        self.judged += 1;
        if writer == instance && self.topology.is_written_by(stream, writer) {
            return Ok(());
        }
        Err(Violation::Wire(WireViolation::NotItsWriter {
            instance: instance.clone(),
            stream: stream.clone(),
            writer: writer.clone(),
            command: line.command(),
        }))
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::observation::Side;
    use crate::protocol::Token;
    use crate::streams::Promise;

    fn is_well(instance: &str, stream: &str, writer: &str) -> bool {
        let topology = Topology::new(["master".into()]).with_stream("typing", Promise::Memory, ["writer".into()]);
        let mut judge = WritersAnnounce::new(&topology);
        let (stream, writer): (crate::protocol::StreamName, crate::protocol::InstanceName) =
            (stream.into(), writer.into());
        let lines = [
            Line::Rdata { stream: stream.clone(), writer: writer.clone(), token: Some(Token(1)) },
            Line::Position { stream, writer, prev: Token(1), new: Token(1) },
        ];
        let verdicts = lines.map(|line| {
            let wrote = Observation::Wrote { instance: instance.into(), attempt: 1, side: Side::Server, line };
            match judge.observe(Moment(0), &wrote) {
                Ok(()) => true,
                Err(Violation::Wire(WireViolation::NotItsWriter { .. })) => false,
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(verdicts[0], verdicts[1], "rows and positions alike");
        verdicts[0]
    }

    #[test]
    fn a_configured_writer_speaks_of_its_own_rows() {
        assert!(is_well("writer", "typing", "writer"));
    }

    #[test]
    fn nobody_speaks_of_what_another_one_writes_or_of_what_it_does_not_write() {
        assert!(!is_well("master", "typing", "writer"), "it passes on another one's");
        assert!(!is_well("master", "typing", "master"), "it is not its writer");
        assert!(!is_well("writer", "events", "writer"), "there is no such stream");
    }
}
