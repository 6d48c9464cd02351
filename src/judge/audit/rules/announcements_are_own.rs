//! A writer announces what concerns its own rows.
//!
//! The writers of one stream share its tokens, so an idle one's position falls behind the others'. In Synapse it follows
//! them: for each row of another writer it sends a `POSITION` of its own (Synapse #8499, left out for `caches` since
//! #16557), which every process reads and every one but the other writer has no use for. With `n` writers a row brings
//! `n - 1` of them.
//!
//! No false alarm: a position that moves over tokens of which even one is unknown, or the writer's own, is no echo.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation};
use crate::protocol::{Command, InstanceName, Position, StreamName, Token};

/// How many tokens of a stream are remembered.
const TOKENS_MAX: usize = 10_000;

/// Judges every position that moves.
#[derive(Debug, Default)]
pub struct AnnouncementsAreOwn {
    rows: BTreeMap<StreamName, BTreeMap<Token, InstanceName>>,
    judged: u64,
}

impl AnnouncementsAreOwn {
    /// Whose rows the tokens that a position moves over are, if all of them are known.
    fn writers(&self, position: &Position) -> Option<BTreeSet<&InstanceName>> {
        let span = usize::try_from(position.new.0.checked_sub(position.prev.0)?).ok()?;
        let rows = self.rows.get(&position.stream)?.range(position.prev.next()..=position.new);
        let writers: Vec<_> = rows.map(|(_, writer)| writer).collect();
        (writers.len() == span).then(|| writers.into_iter().collect())
    }
}

impl Rule for AnnouncementsAreOwn {
    fn name(&self) -> &'static str {
        "announcements_are_own"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        match heard.said {
            Ok(Command::Rdata(rdata)) => {
                let Some(token) = rdata.token else { return };
                let rows = self.rows.entry(rdata.stream.clone()).or_default();
                rows.insert(token, rdata.writer.clone());
                while rows.len() > TOKENS_MAX {
                    rows.pop_first();
                }
            }
            Ok(Command::Position(position)) if position.prev < position.new => {
                self.judged += 1;
                let Some(writers) = self.writers(position).filter(|writers| !writers.contains(&position.writer)) else {
                    return;
                };
                let others = writers.into_iter().cloned().collect();
                let (prev, new) = (position.prev, position.new);
                findings.add(heard.line, Violation::OfOthers { origin: Origin::from(position), prev, new, others });
            }
            _ => {}
        }
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
    fn an_idle_writer_that_follows_the_others_is_found() {
        let payloads = [
            r#"RDATA events a 2 ["x"]"#,
            "POSITION events b 1 2",
            r#"RDATA events a 3 ["x"]"#,
            r#"RDATA events c 4 ["x"]"#,
            "POSITION events b 2 4",
        ];
        assert_eq!(found(AnnouncementsAreOwn::default(), &payloads), [(2, "of_others"), (5, "of_others")]);
    }

    #[test]
    fn tokens_of_nobody_or_of_its_own_are_a_writers_affair() {
        let payloads = [
            r#"RDATA events a 2 ["x"]"#,
            "POSITION events b 2 3",
            "POSITION events b 1 3",
            r#"RDATA events b 4 ["x"]"#,
            "POSITION events b 3 4",
            "POSITION events b 2 2",
            "POSITION events b 4 0",
            "POSITION receipts b 1 2",
        ];
        assert_eq!(found(AnnouncementsAreOwn::default(), &payloads), []);
    }
}
