//! A writer announces what concerns its own rows.
//!
//! The writers of one stream share its tokens, so an idle one's position falls behind the others'. In Synapse it follows
//! them: for each row of another writer it sends a `POSITION` of its own (Synapse #8499, left out for `caches` since
//! #16557), which every process reads and every one but the other writer has no use for. With `n` writers a row brings
//! `n - 1` of them.
//!
//! No false alarm: a position that moves over tokens of which even one is unknown, or the writer's own, is no echo. And
//! somebody has to say so now and then: a writer with no more than [`ECHOES_MAX`] of one stream within [`WINDOW_MS`] is
//! not judged, which is what Squall's come to, twice over; but all echoes of one that once had more are found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Rule;
use crate::judge::audit::{Finding, Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, InstanceName, Position, StreamName, Token};

/// How many tokens of a stream are remembered.
const TOKENS_MAX: usize = 10_000;

/// The stretch of time in which echoes are counted.
pub const WINDOW_MS: u64 = 10_000;

/// How many echoes of one writer and stream in it are no more than it takes.
pub const ECHOES_MAX: usize = 20;

/// How many echoes of a writer are remembered until there are too many.
const REMEMBERED_MAX: usize = 2_000;

/// Judges every position that moves.
#[derive(Debug, Default)]
pub struct AnnouncementsAreOwn {
    rows: BTreeMap<StreamName, BTreeMap<Token, InstanceName>>,
    echoes: BTreeMap<InstanceName, Echoes>,
    judged: u64,
}

/// The echoes of one writer.
#[derive(Debug, Default)]
struct Echoes {
    /// Those that may be no more than it takes, and when they came.
    remembered: VecDeque<(Moment, Finding)>,
    /// Whether there were once more.
    are_found: bool,
}

impl Echoes {
    fn add(&mut self, at: Option<Moment>, origin: &Origin, finding: Finding, findings: &mut Findings) {
        let Some(at) = at.filter(|_| !self.are_found) else {
            return findings.add(finding.line, finding.violation);
        };
        self.remembered.push_back((at, finding));
        let recent = self.remembered.iter().rev().take_while(|(then, _)| at.ms_since(*then) < WINDOW_MS);
        let is_alike = |finding: &Finding| finding.violation.stream() == Some(&origin.stream);
        if recent.filter(|(_, finding)| is_alike(finding)).count() > ECHOES_MAX {
            self.are_found = true;
            for (_, Finding { line, violation }) in self.remembered.drain(..) {
                findings.add(line, violation);
            }
        } else if self.remembered.len() > REMEMBERED_MAX {
            self.remembered.pop_front();
        }
    }
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
                let (origin, prev, new) = (Origin::from(position), position.prev, position.new);
                let violation = Violation::OfOthers { origin: origin.clone(), prev, new, others };
                let echoes = self.echoes.entry(origin.writer.clone()).or_default();
                echoes.add(heard.at, &origin, Finding { line: heard.line, violation }, findings);
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        self.rows.clear();
        self.echoes.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found_at;

    /// What is found if `b` follows each row of `a`, which come `apart_ms` from each other.
    fn found(rows: u64, apart_ms: u64, echo: impl Fn(u64) -> String) -> Vec<u64> {
        let row = |token: u64| format!(r#"RDATA events a {token} ["x"]"#);
        let lines: Vec<_> = (1..=rows).flat_map(|token| [(token, row(token)), (token, echo(token))]).collect();
        let payloads: Vec<_> = lines.iter().map(|(token, text)| (token * apart_ms, text.as_str())).collect();
        let found = found_at(AnnouncementsAreOwn::default(), &payloads);
        assert!(found.iter().all(|finding| finding.violation.kind() == "of_others"));
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn an_idle_writer_that_follows_each_row_of_the_others_is_found() {
        let echo = |token| format!("POSITION events b {} {token}", token - 1);
        assert_eq!(found(40, 400, echo), (1..=40).map(|token| 2 * token).collect::<Vec<_>>());
    }

    #[test]
    fn an_idle_writer_that_follows_the_others_now_and_then_is_not() {
        let echo = |token| format!("POSITION events b {} {token}", token - 1);
        assert!(found(400, 500, echo).is_empty());
    }

    #[test]
    fn tokens_of_nobody_or_of_its_own_are_a_writers_affair() {
        assert!(found(40, 10, |token| format!("POSITION events b {token} {}", token + 1)).is_empty());
        assert!(found(40, 10, |token| format!("POSITION events a {} {token}", token - 1)).is_empty());
        assert!(found(40, 10, |token| format!("POSITION events b {token} {token}")).is_empty());
        assert!(found(40, 10, |_| "POSITION events b 4 0".to_owned()).is_empty());
        assert!(found(40, 10, |token| format!("POSITION receipts b {} {token}", token - 1)).is_empty());
    }
}
