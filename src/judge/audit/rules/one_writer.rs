//! Some streams have one writer.
//!
//! What is held in one process's memory, or decided by one process, can be written by that one alone. If two processes
//! write such a stream (two that are configured differently, two of one name are not told apart), their followers mix the
//! tokens of both. Synapse refuses such a configuration, but no process knows the others'.
//!
//! Who writes a stream may also be known beforehand, whether it has one writer or several.
//!
//! No false alarm: a stream may move to another writer only when the whole deployment is configured anew; whoever records
//! across that gets one finding for each stream that moved.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation, Writers};
use crate::judge::observation::Moment;
use crate::protocol::{Command, InstanceName, StreamName};

/// Streams that Synapse's configuration gives one writer, or that only its main process writes.
const SINGLE: [&str; 10] = [
    "account_data",
    "federation",
    "presence",
    "presence_federation",
    "push_rules",
    "pushers",
    "to_device",
    "typing",
    "un_partial_stated_event",
    "un_partial_stated_room",
];

/// Judges who writes such a stream.
#[derive(Debug, Default)]
pub struct OneWriter {
    /// The first writer of each, and then all others.
    writers: BTreeMap<StreamName, (InstanceName, BTreeSet<InstanceName>)>,
    known: Writers,
    /// Those that write what others are known to write.
    wrong: BTreeSet<Origin>,
    judged: u64,
}

impl OneWriter {
    /// Judges streams of which it is `known` who writes them, and those that have one writer.
    pub fn new(known: Writers) -> Self {
        OneWriter { known, ..OneWriter::default() }
    }
}

impl Rule for OneWriter {
    fn name(&self) -> &'static str {
        "one_writer"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        let origin = match heard.said {
            Ok(Command::Rdata(rdata)) => Origin::from(rdata),
            Ok(Command::Position(position)) => Origin::from(position),
            _ => return,
        };
        if let Some(writers) = self.known.get(&origin.stream) {
            self.judged += 1;
            if !writers.contains(&origin.writer) && self.wrong.insert(origin.clone()) {
                let writers = writers.iter().cloned().collect();
                findings.add(heard.line, Violation::NotItsWriter { origin, writers });
            }
            return;
        }
        if !SINGLE.contains(&origin.stream.as_str()) {
            return;
        }
        self.judged += 1;
        let new = || (origin.writer.clone(), BTreeSet::new());
        let (first, others) = self.writers.entry(origin.stream.clone()).or_insert_with(new);
        if *first != origin.writer && others.insert(origin.writer.clone()) {
            findings.add(heard.line, Violation::SecondWriter { first: first.clone(), origin });
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        // The deployment may have been configured anew.
        self.writers.clear();
        self.wrong.clear();
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
    fn a_second_writer_is_found_once() {
        let payloads = [
            "POSITION typing a 1 1",
            r#"RDATA typing b 1 ["!r",[]]"#,
            "POSITION typing b 1 1",
            "POSITION typing a 1 1",
        ];
        assert_eq!(found(OneWriter::default(), &payloads), [(2, "second_writer")]);
    }

    #[test]
    fn a_stream_of_many_writers_may_have_many() {
        let payloads = ["POSITION events a 1 1", "POSITION events b 1 1", "POSITION typing a 1 1"];
        assert_eq!(found(OneWriter::default(), &payloads), []);
    }

    #[test]
    fn who_is_known_not_to_write_a_stream_is_found_once() {
        let writers = |names: &[&str]| names.iter().map(|name| InstanceName::from(*name)).collect::<BTreeSet<_>>();
        let known = Writers::from([("events".into(), writers(&["a", "b"])), ("typing".into(), writers(&["c"]))]);
        let payloads = [
            "POSITION events a 1 1",
            r#"RDATA events b 2 ["x"]"#,
            "POSITION events master 2 2",
            r#"RDATA events master 3 ["x"]"#,
            "POSITION typing master 1 1",
            "POSITION typing c 1 1",
            "POSITION receipts anybody 1 1",
        ];
        let expected = [(3, "not_its_writer"), (5, "not_its_writer")];
        assert_eq!(found(OneWriter::new(known), &payloads), expected);
    }
}
