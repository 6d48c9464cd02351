//! Rows are not passed over.
//!
//! What is published on a connection to the broker that breaks is lost, and `RDATA` does not say what came before it: a
//! writer that goes on with its next row, and no position in between, makes every follower pass over what was lost. Only
//! the numbers tell: the writers of a stream share its tokens, and one of them nobody ever sent.
//!
//! No false alarm: only streams are judged of which every row is kept and sent, each under a token of its own; in others a
//! row may have taken the place of another one. A token may still be on its way with another writer, so nothing is found
//! before every writer has passed it, and [`SETTLED_MS`] more, in which no writer is heard that was not known. A writer
//! that says by its position that there is nothing in between passes over nothing. What remains is a row that was lost, or
//! a token whose transaction failed; the traffic cannot tell which.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Rule;
use crate::judge::audit::{Findings, Heard, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, InstanceName, StreamName, Token};

/// Streams of which every row is kept and sent. `caches` is another one, but takes its tokens within transactions that are
/// tried again.
const COMPLETE: [&str; 1] = ["events"];

/// How long a token that everybody has passed may still turn out to be somebody else's, in milliseconds.
pub const SETTLED_MS: u64 = 5_000;

/// How many tokens of a stream are remembered.
const TOKENS_MAX: usize = 10_000;

/// How many tokens a finding names.
const NAMED_MAX: usize = 8;

/// Judges rows that do not come right behind what their writer said before.
#[derive(Debug, Default)]
pub struct RowsComplete {
    streams: BTreeMap<StreamName, Passing>,
    judged: u64,
}

/// How far a stream's writers have come.
#[derive(Debug, Default)]
struct Passing {
    stands: BTreeMap<InstanceName, Token>,
    /// Whatever was passed over up to here is settled, or was before anybody listened.
    settled_upto: Option<Token>,
    /// What was sent beyond that.
    sent: BTreeSet<Token>,
    /// What was passed over by rows beyond that and not sent yet, and by whom.
    passed: BTreeMap<Token, BTreeSet<InstanceName>>,
    /// What everybody has passed, since when, with the line that showed it.
    missing: VecDeque<(u64, Option<Moment>, Token, BTreeSet<InstanceName>)>,
}

impl Passing {
    fn row(&mut self, writer: &InstanceName, token: Token) -> bool {
        self.sent.insert(token);
        self.passed.remove(&token);
        let stand = self.stands.get(writer).copied();
        self.stand(writer, stand.map_or(token, |stand| stand.max(token)));
        let Some(from) = stand.max(self.settled_upto).filter(|_| stand.is_some()) else { return false };
        if from.0 >= token.0.saturating_sub(1) {
            return stand < Some(token);
        }
        if token.0.abs_diff(from.0) > TOKENS_MAX as u64 {
            self.forget(token);
            return false;
        }
        for passed in (from.0 + 1..token.0).map(Token).filter(|passed| !self.sent.contains(passed)) {
            self.passed.entry(passed).or_default().insert(writer.clone());
        }
        true
    }

    fn position(&mut self, writer: &InstanceName, prev: Token, new: Token) {
        // What lies before a position that begins further on is found where it is missed, in `positions_meet`.
        if let Some(from) = self.stands.get(writer).copied().filter(|from| *from < prev) {
            let skipped: Vec<_> = self.passed.range(from.next()..=prev).map(|(token, _)| *token).collect();
            skipped.iter().for_each(|token| drop(self.passed.remove(token)));
        }
        self.stand(writer, new);
    }

    fn stand(&mut self, writer: &InstanceName, stand: Token) {
        if self.stands.insert(writer.clone(), stand).is_none() {
            // It may have sent all of these before it was heard.
            self.forget(stand);
            self.missing.clear();
        }
    }

    fn forget(&mut self, upto: Token) {
        self.settled_upto = self.settled_upto.max(Some(upto));
        let is_beyond = |token: &Token| *token > upto;
        self.sent.retain(is_beyond);
        self.passed.retain(|token, _| is_beyond(token));
    }

    /// What every writer has passed nobody will send.
    fn settle(&mut self, line: u64, at: Option<Moment>) {
        let Some(everybody) = self.stands.values().min().copied().filter(|min| Some(*min) > self.settled_upto) else {
            return;
        };
        let rest = self.passed.split_off(&Token(everybody.0.saturating_add(1)));
        for (token, writers) in std::mem::replace(&mut self.passed, rest) {
            self.missing.push_back((line, at, token, writers));
        }
        self.forget(everybody);
        // Somebody stands still while the others go on.
        while self.sent.len().max(self.passed.len()) > TOKENS_MAX {
            let first = self.sent.first().copied().max(self.passed.keys().next().copied());
            first.into_iter().for_each(|first| self.forget(first));
        }
        while self.missing.len() > TOKENS_MAX {
            self.missing.pop_front();
        }
    }
}

impl RowsComplete {
    fn find(&mut self, now: Option<Moment>, findings: &mut Findings) {
        for (stream, passing) in &mut self.streams {
            let is_certain = |at: &Option<Moment>| at.zip(now).is_none_or(|(at, now)| now.ms_since(at) >= SETTLED_MS);
            let certain = passing.missing.iter().take_while(|(_, at, ..)| is_certain(at)).count();
            // Those that were passed together are found together.
            let mut groups: BTreeMap<u64, (Vec<Token>, BTreeSet<InstanceName>)> = BTreeMap::new();
            for (line, _, token, by) in passing.missing.drain(..certain) {
                let (tokens, writers) = groups.entry(line).or_default();
                tokens.push(token);
                writers.extend(by);
            }
            for (line, (mut tokens, writers)) in groups {
                let count = tokens.len() as u64;
                tokens.truncate(NAMED_MAX);
                let (stream, writers) = (stream.clone(), writers.into_iter().collect());
                findings.add(line, Violation::PassedOver { stream, writers, tokens, count });
            }
        }
    }
}

impl Rule for RowsComplete {
    fn name(&self) -> &'static str {
        "rows_complete"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        self.find(heard.at, findings);
        let stream = match heard.said {
            Ok(Command::Rdata(rdata)) => &rdata.stream,
            Ok(Command::Position(position)) => &position.stream,
            _ => return,
        };
        if !COMPLETE.contains(&stream.as_str()) {
            return;
        }
        let passing = self.streams.entry(stream.clone()).or_default();
        match heard.said {
            Ok(Command::Rdata(rdata)) => {
                let Some(token) = rdata.token else { return };
                self.judged += u64::from(passing.row(&rdata.writer, token));
            }
            Ok(Command::Position(position)) => passing.position(&position.writer, position.prev, position.new),
            _ => {}
        }
        passing.settle(heard.line, heard.at);
    }

    fn tick(&mut self, now: Option<Moment>, findings: &mut Findings) {
        self.find(now, findings);
    }

    fn missed(&mut self, _now: Option<Moment>) {
        self.streams.clear();
    }

    fn end(&mut self, at: Option<Moment>, findings: &mut Findings) {
        self.find(at, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found_at;

    /// The tokens that are found to be passed over, with the lines that show it, some time after all of this was said.
    fn passed_over(payloads: &[&str]) -> Vec<(u64, Vec<i64>)> {
        let payloads = (0..).zip(payloads.iter().copied()).chain([(2 * SETTLED_MS, "PING 1")]);
        let payloads: Vec<_> = payloads.collect();
        let found = found_at(RowsComplete::default(), &payloads);
        let tokens = found.into_iter().map(|finding| match finding.violation {
            Violation::PassedOver { tokens, .. } => (finding.line, tokens.into_iter().map(|token| token.0).collect()),
            other => panic!("{other:?}"),
        });
        tokens.collect()
    }

    const BOTH: [&str; 2] = ["POSITION events a 4 4", "POSITION events b 4 4"];
    const A5: &str = r#"RDATA events a 5 ["x"]"#;
    const A7: &str = r#"RDATA events a 7 ["x"]"#;
    const B6: &str = r#"RDATA events b 6 ["x"]"#;
    const B8: &str = r#"RDATA events b 8 ["x"]"#;

    #[test]
    fn a_row_that_nobody_sent_is_found_when_everybody_is_past_it() {
        let payloads = [BOTH[0], BOTH[1], A5, A7];
        assert!(passed_over(&payloads).is_empty(), "it may still be on its way");
        assert_eq!(passed_over(&[&payloads[..], &[B8]].concat()), [(5, vec![6])]);
        assert_eq!(passed_over(&[&payloads[..], &["POSITION events b 4 7"]].concat()), [(5, vec![6])]);
        let alone = [r#"RDATA events a 4 ["x"]"#, A7];
        assert_eq!(passed_over(&alone), [(2, vec![5, 6])]);
    }

    #[test]
    fn whoever_sends_it_and_however_late_it_is_not_passed_over() {
        assert!(passed_over(&[BOTH[0], BOTH[1], A5, B6, A7, B8]).is_empty());
        assert!(passed_over(&[BOTH[0], BOTH[1], A5, A7, B6, B8]).is_empty());
        assert!(passed_over(&[BOTH[0], BOTH[1], B6, B8, A5, A7]).is_empty());
    }

    #[test]
    fn a_position_tells_what_was_not_used_and_what_is_to_be_fetched() {
        assert!(passed_over(&[BOTH[0], A5, "POSITION events a 5 6", A7]).is_empty());
        assert!(passed_over(&[BOTH[0], A5, "POSITION events a 6 6", A7]).is_empty());
    }

    #[test]
    fn what_was_said_before_anybody_listened_is_not_missed() {
        assert!(passed_over(&[A7, B8]).is_empty());
        assert!(passed_over(&[A5, A7, "POSITION events b 6 6"]).is_empty(), "another writer, which may have sent it");
        assert_eq!(
            passed_over(&[A5, B6, B8, A7, r#"RDATA events a 10 ["x"]"#, "POSITION events b 8 10"]),
            [(6, vec![9])]
        );
    }

    #[test]
    fn streams_in_which_rows_take_each_others_places_are_not_judged() {
        let payloads = ["POSITION receipts a 4 4", r#"RDATA receipts a 9 ["x"]"#];
        assert!(passed_over(&payloads).is_empty());
    }

    #[test]
    fn it_is_found_as_time_passes_and_once() {
        let mut rule = RowsComplete::default();
        let mut findings = Findings::default();
        for (line, text) in (1..).zip([BOTH[0], A5, A7]) {
            let said = Command::parse(text).map_err(crate::judge::audit::Unreadable::from);
            let (at, channel, transport) = (Some(Moment(0)), None, crate::judge::audit::Transport::Redis);
            let dialect = crate::protocol::Dialect::V1_163;
            rule.hear(&Heard { line, at, channel, transport, dialect, said: said.as_ref() }, &mut findings);
        }
        let mut found_by = |ms| {
            rule.tick(Some(Moment(ms)), &mut findings);
            findings.0.len()
        };
        assert_eq!((found_by(SETTLED_MS - 1), found_by(SETTLED_MS), found_by(90_000)), (0, 1, 1));
    }
}
