//! Batches come whole.
//!
//! Rows that share a token say `batch` until the last one says the token. Synapse's followers keep one open batch for
//! each stream, whoever writes it: if another writer's row comes in between, they apply the batch under that one's token,
//! or drop it. And a position of the stream makes them forget the batch.
//!
//! No false alarm: a batch that is open when the recording ends may have gone on, and one that was open when it began is
//! not seen to be one.

use std::collections::BTreeMap;

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, InstanceName, StreamName};

/// Judges every row and position of a stream of which a batch is open.
#[derive(Debug, Default)]
pub struct BatchesWhole {
    open: BTreeMap<StreamName, BTreeMap<InstanceName, Batch>>,
    judged: u64,
}

#[derive(Debug)]
struct Batch {
    since: u64,
    rows: u64,
    /// Whether it is known that somebody came in between.
    is_mixed: bool,
}

impl BatchesWhole {
    /// `origin` said something: that must not be while a batch of another writer is open.
    fn came_between(&mut self, heard: &Heard<'_>, origin: &Origin, findings: &mut Findings) {
        let Some(open) = self.open.get_mut(&origin.stream) else { return };
        for (writer, batch) in open.iter_mut().filter(|(writer, _)| **writer != origin.writer) {
            self.judged += 1;
            if !std::mem::replace(&mut batch.is_mixed, true) {
                let (origin, open, open_since) = (origin.clone(), writer.clone(), batch.since);
                findings.add(heard.line, Violation::Interleaved { origin, open, open_since });
            }
        }
    }
}

impl Rule for BatchesWhole {
    fn name(&self) -> &'static str {
        "batches_whole"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        match heard.said {
            Ok(Command::Rdata(rdata)) => {
                let origin = Origin::from(rdata);
                self.came_between(heard, &origin, findings);
                let open = self.open.entry(origin.stream).or_default();
                if rdata.token.is_none() {
                    let new = || Batch { since: heard.line, rows: 0, is_mixed: false };
                    open.entry(origin.writer).or_insert_with(new).rows += 1;
                } else if open.remove(&origin.writer).is_some() {
                    self.judged += 1;
                }
            }
            Ok(Command::Position(position)) => {
                let origin = Origin::from(position);
                self.came_between(heard, &origin, findings);
                let batch = self.open.get_mut(&origin.stream).and_then(|open| open.remove(&origin.writer));
                if let Some(Batch { since: open_since, rows, .. }) = batch {
                    self.judged += 1;
                    findings.add(heard.line, Violation::CutShort { origin, rows, open_since });
                }
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        self.open.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found;

    #[test]
    fn whole_batches_of_several_writers_and_streams_are_fine() {
        let payloads = [
            r#"RDATA events a batch ["x"]"#,
            r#"RDATA caches b 7 ["x"]"#,
            "POSITION caches a 7 7",
            r#"RDATA events a 2 ["x"]"#,
            r#"RDATA events b batch ["x"]"#,
            r#"RDATA events b 3 ["x"]"#,
            "POSITION events b 3 3",
            r#"RDATA events b batch ["x"]"#,
        ];
        assert_eq!(found(BatchesWhole::default(), &payloads), []);
    }

    #[test]
    fn whoever_comes_into_a_batch_is_found_once() {
        let payloads = [
            r#"RDATA events a batch ["x"]"#,
            r#"RDATA events b 3 ["x"]"#,
            "POSITION events b 3 3",
            r#"RDATA events a 2 ["x"]"#,
            r#"RDATA events b 4 ["x"]"#,
        ];
        assert_eq!(found(BatchesWhole::default(), &payloads), [(2, "interleaved")]);
    }

    #[test]
    fn a_batch_without_its_end_is_found() {
        let payloads = [r#"RDATA events a batch ["x"]"#, "POSITION events a 1 1", r#"RDATA events a 2 ["x"]"#];
        assert_eq!(found(BatchesWhole::default(), &payloads), [(2, "cut_short")]);
    }
}
