//! A position begins where the writer had come.
//!
//! `RDATA` does not say what came before it, so whoever listens learns of a row that was never sent only from the next
//! position: its first token is beyond what was heard. A writer whose connection is cut drops what it would have sent and
//! goes on from there, and of a broken outgoing connection it may not even know.
//!
//! No false alarm: writers of one stream share its tokens, so a token that anybody sent is accounted for, and so is any
//! that a writer may have sent before it was first heard. Others may be on their way, so nothing is found before
//! [`SETTLED_AFTER`] more payloads and [`SETTLED_MS_MIN`], or [`SETTLED_MS_MAX`]. A writer of a stream in memory that was
//! started again begins where its numbers do ([`Token::run`]), and skips none of those between. What remains was sent by
//! nobody: it is a row that is missing, or a token that was taken and not used; the traffic cannot tell which.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, StreamName, Token};

/// After how many payloads a token that nobody sent is taken to be missing.
pub const SETTLED_AFTER: u64 = 100;

/// How long it is not taken to be missing, however many payloads there are, in milliseconds.
pub const SETTLED_MS_MIN: u64 = 1_000;

/// After how long it is, however few payloads there are, in milliseconds.
pub const SETTLED_MS_MAX: u64 = 5_000;

/// How many tokens of a stream are remembered.
const TOKENS_MAX: usize = 10_000;

/// How many tokens a finding names.
const NAMED_MAX: usize = 8;

/// Judges where positions begin.
#[derive(Debug, Default)]
pub struct PositionsMeet {
    /// Where each writer stands.
    positions: BTreeMap<Origin, Token>,
    sent: BTreeMap<StreamName, Sent>,
    unsettled: VecDeque<Gap>,
    heard: u64,
    judged: u64,
}

/// The tokens of a stream that anybody sent rows of.
#[derive(Debug, Default)]
struct Sent {
    tokens: BTreeSet<Token>,
    /// Whatever was sent up to here is forgotten.
    forgotten_upto: Option<Token>,
}

#[derive(Debug)]
struct Gap {
    heard: u64,
    line: u64,
    at: Option<Moment>,
    origin: Origin,
    from: Token,
    prev: Token,
}

impl Sent {
    fn forget(&mut self, upto: Token) {
        self.forgotten_upto = self.forgotten_upto.max(Some(upto));
    }

    fn add(&mut self, token: Token) {
        self.tokens.insert(token);
        while self.tokens.len() > TOKENS_MAX {
            self.forgotten_upto = self.tokens.pop_first().max(self.forgotten_upto);
        }
    }

    /// How many tokens in `(from, upto]` nobody sent, and the first of them.
    fn missing(&self, from: Token, upto: Token) -> (u64, Vec<Token>) {
        let from = self.forgotten_upto.map_or(from, |forgotten| forgotten.max(from));
        if from >= upto {
            return (0, Vec::new());
        }
        let range = self.tokens.range(from.next()..=upto);
        let count = upto.0.abs_diff(from.0) - range.clone().count() as u64;
        let named = count.min(NAMED_MAX as u64) as usize;
        let unsent = (from.0 + 1..=upto.0).map(Token).filter(|token| !self.tokens.contains(token));
        (count, unsent.take(named).collect())
    }
}

impl PositionsMeet {
    /// `origin` said something of the token. Whatever a writer says first, it may have said more before.
    fn stand(&mut self, origin: Origin, token: Token) -> Option<Token> {
        let stream = origin.stream.clone();
        let before = self.positions.insert(origin, token);
        if before.is_none() {
            self.sent.entry(stream).or_default().forget(token);
        }
        before
    }

    fn settle(&mut self, now: Option<Moment>, is_over: bool, findings: &mut Findings) {
        let heard = self.heard;
        let is_settled = |gap: &Gap| {
            let are_enough = heard >= gap.heard + SETTLED_AFTER;
            let waited_ms = gap.at.zip(now).map(|(at, now)| now.ms_since(at));
            is_over || waited_ms.map_or(are_enough, |ms| are_enough && ms >= SETTLED_MS_MIN || ms >= SETTLED_MS_MAX)
        };
        let settled = self.unsettled.iter().take_while(|gap| is_settled(gap)).count();
        for Gap { line, origin, from, prev, .. } in self.unsettled.drain(..settled) {
            self.judged += 1;
            let (count, tokens) = self.sent.entry(origin.stream.clone()).or_default().missing(from, prev);
            if count > 0 {
                findings.add(line, Violation::Skipped { origin, from, prev, tokens, count });
            }
        }
    }
}

impl Rule for PositionsMeet {
    fn name(&self) -> &'static str {
        "positions_meet"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        self.settle(heard.at, false, findings);
        self.heard += 1;
        match heard.said {
            Ok(Command::Rdata(rdata)) => {
                let Some(token) = rdata.token else { return };
                let origin = Origin::from(rdata);
                let before = self.positions.get(&origin).copied().unwrap_or(token);
                self.stand(origin, token.max(before));
                self.sent.entry(rdata.stream.clone()).or_default().add(token);
            }
            Ok(Command::Position(position)) => {
                let (origin, line, at) = (Origin::from(position), heard.line, heard.at);
                let (prev, new) = (position.prev, position.new);
                let before = self.stand(origin.clone(), new);
                if origin.is_in_memory() && before.is_some_and(|before| new < before) {
                    // The same tokens mean other rows from here on.
                    self.sent.remove(&origin.stream);
                }
                let is_another_run = |before: Token| origin.is_in_memory() && prev.run() != before.run();
                match before.filter(|before| *before < prev && !is_another_run(*before)) {
                    Some(from) => {
                        let heard = self.heard;
                        self.unsettled.push_back(Gap { heard, line, at, origin, from, prev });
                    }
                    None => self.judged += u64::from(before.is_some()),
                }
            }
            _ => {}
        }
        self.settle(heard.at, false, findings);
    }

    fn tick(&mut self, now: Option<Moment>, findings: &mut Findings) {
        self.settle(now, false, findings);
    }

    fn missed(&mut self, _now: Option<Moment>) {
        self.positions.clear();
        self.sent.clear();
        self.unsettled.clear();
    }

    fn end(&mut self, at: Option<Moment>, findings: &mut Findings) {
        self.settle(at, true, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::{found, found_at};
    use crate::judge::audit::{Transport, Unreadable};
    use crate::protocol::Dialect;

    #[test]
    fn a_position_beyond_what_was_sent_is_found() {
        let payloads = [
            "POSITION receipts a 4 4",
            "POSITION receipts b 4 4",
            r#"RDATA receipts a 5 ["x"]"#,
            "POSITION receipts a 8 9",
            r#"RDATA receipts b 7 ["x"]"#,
        ];
        let payloads: Vec<_> = (0..).zip(payloads).collect();
        let found = found_at(PositionsMeet::default(), &payloads);
        let [finding] = &found[..] else { panic!("{found:?}") };
        let Violation::Skipped { from: Token(5), prev: Token(8), tokens, count: 2, .. } = &finding.violation else {
            panic!("{finding:?}");
        };
        assert_eq!((finding.line, &**tokens), (4, &[Token(6), Token(8)][..]));
    }

    #[test]
    fn tokens_of_other_writers_are_accounted_for() {
        let payloads = [
            "POSITION caches a 4 4",
            r#"RDATA caches b 5 ["x"]"#,
            "POSITION caches a 6 6",
            r#"RDATA caches c 6 ["x"]"#,
            "POSITION caches d 90 90",
        ];
        assert_eq!(found(PositionsMeet::default(), &payloads), []);
    }

    #[test]
    fn what_a_former_process_sent_does_not_account_for_anything() {
        let payloads = [
            r#"RDATA typing a 1 ["!r",[]]"#,
            r#"RDATA typing a 2 ["!r",[]]"#,
            "POSITION typing a 0 0",
            r#"RDATA typing a 1 ["!r",[]]"#,
            "POSITION typing a 2 2",
        ];
        assert_eq!(found(PositionsMeet::default(), &payloads), [(5, "skipped")]);
    }

    #[test]
    fn what_a_writer_may_have_sent_before_it_was_heard_is_accounted_for() {
        let row = r#"RDATA events b 9 ["x"]"#;
        for first in ["POSITION events b 9 9", row] {
            let found_of = |last| found(PositionsMeet::default(), &["POSITION events a 5 5", first, last]);
            assert_eq!(found_of("POSITION events a 9 9"), []);
            assert_eq!(found_of("POSITION events a 10 10"), [(3, "skipped")]);
        }
    }

    #[test]
    fn a_writer_in_memory_that_was_started_again_skips_nothing() {
        let (first, second) = (Token::beginning_of(1).0, Token::beginning_of(2).0);
        let found_in = |stream: &str, prev: i64| {
            let payloads = [
                format!(r#"RDATA {stream} a {} ["!r",[]]"#, first + 26),
                format!("POSITION {stream} a {prev} {prev}"),
                format!(r#"RDATA {stream} a {} ["!r",[]]"#, prev + 1),
                format!("POSITION {stream} a {0} {0}", prev + 1),
            ];
            found(PositionsMeet::default(), &payloads.each_ref().map(String::as_str))
        };
        assert_eq!(found_in("typing", second), []);
        assert_eq!(found_in("typing", first + 28), [(2, "skipped")], "the same run");
        assert_eq!(found_in("receipts", second), [(2, "skipped")], "what is in the database has one run");
        let skipped_before = [
            format!(r#"RDATA typing a {} ["!r",[]]"#, first + 26),
            format!("POSITION typing a {0} {0}", first + 28),
            format!("POSITION typing a {second} {second}"),
        ];
        let payloads = skipped_before.each_ref().map(String::as_str);
        assert_eq!(found(PositionsMeet::default(), &payloads), [(2, "skipped")]);
    }

    #[test]
    fn it_is_found_while_the_traffic_goes_on() {
        let mut payloads = vec!["POSITION receipts a 4 4", "POSITION receipts a 6 6"];
        payloads.extend([r#"RDATA receipts a 7 ["x"]"#; 2 * SETTLED_AFTER as usize]);
        let found_by = |ms_apart: Option<u64>| {
            let mut rule = PositionsMeet::default();
            let mut findings = Findings::default();
            for (ordinal, text) in (0..).zip(&payloads) {
                let said = Command::parse(text).map_err(Unreadable::from);
                let at = ms_apart.map(|ms| Moment(ordinal * ms));
                let (channel, transport, dialect) = (None, Transport::Redis, Dialect::V1_163);
                rule.hear(&Heard { line: 1, at, channel, transport, dialect, said: said.as_ref() }, &mut findings);
                if !findings.0.is_empty() {
                    return ordinal;
                }
            }
            panic!("not found");
        };
        // Where it is not known when they come; where they are many, and where they are few.
        assert_eq!((found_by(None), found_by(Some(8)), found_by(Some(1_000))), (101, 126, 6));
    }

    #[test]
    fn what_is_forgotten_is_not_missing() {
        let mut sent = Sent::default();
        (1..=TOKENS_MAX as i64 + 5).for_each(|token| sent.add(Token(token)));
        assert_eq!(sent.missing(Token(0), Token(TOKENS_MAX as i64 + 6)), (1, vec![Token(TOKENS_MAX as i64 + 6)]));
    }
}
