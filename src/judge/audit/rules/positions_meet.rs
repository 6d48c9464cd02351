//! A position begins where the writer had come.
//!
//! `RDATA` does not say what came before it, so whoever listens learns of a row that was never sent only from the next
//! position: its first token is beyond what was heard. A writer whose connection is cut drops what it would have sent and
//! goes on from there, and of a broken outgoing connection it may not even know.
//!
//! No false alarm: writers of one stream share its tokens, so a token that anybody sent is accounted for. Others may be on
//! their way, so nothing is found before [`SETTLED_AFTER`] more payloads. What remains was sent by nobody: it is a row
//! that is missing, or a token that was taken and not used; the traffic cannot tell which.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, StreamName, Token};

/// After how many payloads a token that nobody sent is taken to be missing.
pub const SETTLED_AFTER: u64 = 100;

/// How many tokens of a stream are remembered.
const TOKENS_MAX: usize = 10_000;

/// How many tokens a finding names.
const NAMED_MAX: usize = 8;

/// Judges where positions begin.
#[derive(Debug, Default)]
pub struct PositionsMeet {
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
    origin: Origin,
    from: Token,
    prev: Token,
}

impl Sent {
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
        let (mut tokens, mut next) = (Vec::with_capacity(named), from.next());
        while tokens.len() < named {
            if !self.tokens.contains(&next) {
                tokens.push(next);
            }
            next = next.next();
        }
        (count, tokens)
    }
}

impl PositionsMeet {
    fn settle(&mut self, is_over: bool, findings: &mut Findings) {
        let heard = self.heard;
        let is_settled = |gap: &Gap| is_over || heard >= gap.heard + SETTLED_AFTER;
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
        self.heard += 1;
        match heard.said {
            Ok(Command::Rdata(rdata)) => {
                let Some(token) = rdata.token else { return };
                let position = self.positions.entry(Origin::from(rdata)).or_insert(token);
                *position = token.max(*position);
                self.sent.entry(rdata.stream.clone()).or_default().add(token);
            }
            Ok(Command::Position(position)) => {
                let origin = Origin::from(position);
                let before = self.positions.insert(origin.clone(), position.new);
                if origin.is_in_memory() && before.is_some_and(|before| position.new < before) {
                    // The same tokens mean other rows from here on.
                    self.sent.remove(&origin.stream);
                }
                match before.filter(|before| *before < position.prev) {
                    Some(from) => {
                        let (heard, line, prev) = (self.heard, heard.line, position.prev);
                        self.unsettled.push_back(Gap { heard, line, origin, from, prev });
                    }
                    None => self.judged += u64::from(before.is_some()),
                }
            }
            _ => {}
        }
        self.settle(false, findings);
    }

    fn end(&mut self, _at: Option<Moment>, findings: &mut Findings) {
        self.settle(true, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::{found, found_at};

    #[test]
    fn a_position_beyond_what_was_sent_is_found() {
        let payloads = [
            "POSITION receipts a 4 4",
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
        assert_eq!((finding.line, &**tokens), (3, &[Token(6), Token(8)][..]));
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
    fn it_is_found_while_the_traffic_goes_on() {
        let mut payloads = vec!["POSITION receipts a 4 4", "POSITION receipts a 6 6"];
        payloads.extend([r#"RDATA receipts a 7 ["x"]"#; 2 * SETTLED_AFTER as usize]);
        let mut rule = PositionsMeet::default();
        let mut findings = Findings::default();
        for text in payloads {
            let said = crate::protocol::Command::parse(text);
            let (at, channel, transport) = (None, None, crate::judge::audit::Transport::Redis);
            let dialect = Default::default();
            rule.hear(&Heard { line: 1, at, channel, transport, dialect, said: said.as_ref() }, &mut findings);
        }
        assert_eq!(findings.0.len(), 1);
    }

    #[test]
    fn what_is_forgotten_is_not_missing() {
        let mut sent = Sent::default();
        (1..=TOKENS_MAX as i64 + 5).for_each(|token| sent.add(Token(token)));
        assert_eq!(sent.missing(Token(0), Token(TOKENS_MAX as i64 + 6)), (1, vec![Token(TOKENS_MAX as i64 + 6)]));
    }
}
