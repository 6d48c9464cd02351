//! Tokens for which no row was ever sent.
//!
//! `RDATA` does not name the token before it. A row that a writer published on a breaking connection is lost, and followers
//! pass over it with the next row. Only the numbers show it: the writers of a stream share its tokens, and no instance sent
//! a row for one of them. The token may also belong to a transaction that failed, or to a row that a newer one replaced
//! before it was read: `presence` does this all the time. So this is a number for the operator and no finding. In a healthy
//! Synapse it stays at 0 for every stream but `presence`.
//!
//! A token that its writer declares unused does not count: the position `POSITION <prev> <new>` says that the writer has
//! read `(prev, new]` and there is no row. In Synapse 1.19 streams share tokens, so nothing is counted there.
//!
//! A token counts when a row or a position has passed it, and it can come no more (`settled`). If it comes all the same, it
//! counts no more. It counts for the writer that passed it first. A writer may have sent rows before its first payload here,
//! so no token up to that one counts.
//!
//! The memory is bounded: of each stream at most [`TOKENS_MAX`] tokens are remembered.

use std::collections::BTreeMap;

use super::origin::Origin;
use super::payload::{ParsedPayload, RowHead};
use super::settled::PassedAt;
use super::tally::Tally;
use crate::due::run_of;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, Position, StreamName, Token};

/// Number of tokens of a stream that are remembered, of those that may still come and of those that count.
const TOKENS_MAX: usize = 2_000;

/// The tokens without rows of every stream.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    streams: BTreeMap<StreamName, Progress>,
    /// Number of payloads so far.
    payloads: u64,
}

/// The progress of a stream's writers.
#[derive(Debug, Default)]
struct Progress {
    /// The last token of each writer.
    positions: BTreeMap<InstanceName, Token>,
    /// The highest of them.
    max: Option<Token>,
    /// Tokens up to that without a row, which may still come.
    waiting: BTreeMap<Token, Passed>,
    /// Tokens without a row that count.
    counted: BTreeMap<Token, InstanceName>,
}

/// A token that a writer passed.
#[derive(Debug)]
struct Passed {
    by: InstanceName,
    since: PassedAt,
}

impl Progress {
    /// Forgets the tokens up to `upto`. Those that count still do.
    fn forget(&mut self, upto: Token) {
        self.waiting.retain(|token, _| *token > upto);
        self.counted.retain(|token, _| *token > upto);
        self.max = self.max.max(Some(upto));
    }

    /// Moves the position of a writer, which passes every token below it that has not been passed yet.
    fn advance(&mut self, writer: &InstanceName, token: Token, since: PassedAt) {
        let before = self.positions.get(writer).copied();
        self.positions.insert(writer.clone(), before.map_or(token, |before| before.max(token)));
        let Some(max) = self.max.filter(|_| before.is_some()) else { return self.forget(token) };
        if token <= max {
            return;
        }
        if token.0.saturating_sub(max.0) > TOKENS_MAX as i64 {
            return self.forget(token);
        }
        for passed in (max.0 + 1..=token.0).map(Token) {
            self.waiting.insert(passed, Passed { by: writer.clone(), since });
        }
        self.max = Some(token);
        while self.waiting.len() > TOKENS_MAX {
            self.waiting.pop_first();
        }
    }

    /// Moves the position of a writer, which declares the tokens before it unused.
    fn declare(&mut self, writer: &InstanceName, token: Token) {
        let position = self.positions.entry(writer.clone()).or_insert(token);
        *position = token.max(*position);
        self.max = self.max.max(Some(token));
    }
}

impl Unsent {
    /// Takes a payload into account.
    pub(super) fn check(&mut self, payload: &ParsedPayload<'_>, tally: &mut Tally) {
        self.payloads += 1;
        if let Some(RowHead { origin, token: Some(token) }) = payload.row() {
            self.row(origin, token, payload.at, tally);
        }
        if let Ok(Command::Position(position)) = payload.command {
            self.position(position, payload.at);
        }
        self.settle(payload.at, tally);
    }

    fn row(&mut self, origin: Origin, token: Token, at: Option<SimTime>, tally: &mut Tally) {
        let progress = self.streams.entry(origin.stream.clone()).or_default();
        progress.advance(&origin.writer, token, PassedAt { at, payloads: self.payloads });
        progress.waiting.remove(&token);
        if let Some(writer) = progress.counted.remove(&token) {
            tally.came_late(Origin { stream: origin.stream, writer }, token);
        }
    }

    fn position(&mut self, position: &Position, at: Option<SimTime>) {
        let origin = Origin::from(position);
        let progress = self.streams.entry(position.stream.clone()).or_default();
        let before = progress.positions.get(&position.writer).copied();
        let begins_anew = origin.is_in_memory()
            && before.is_some_and(|before| position.new < before || run_of(position.prev) != run_of(before));
        if begins_anew {
            // From here on the same tokens mean other rows.
            *progress = Progress::default();
        }
        let since = PassedAt { at, payloads: self.payloads };
        progress.advance(&position.writer, position.prev.min(position.new), since);
        progress.declare(&position.writer, position.new);
        if before.is_none() {
            progress.forget(position.new);
        }
    }

    /// Counts the tokens that have not come in time.
    pub(super) fn settle(&mut self, now: Option<SimTime>, tally: &mut Tally) {
        for (stream, progress) in &mut self.streams {
            while let Some(first) = progress.waiting.first_entry() {
                if !first.get().since.is_settled(now, self.payloads) {
                    break;
                }
                let (token, passed) = first.remove_entry();
                tally.unsent(Origin { stream: stream.clone(), writer: passed.by.clone() }, token);
                progress.counted.insert(token, passed.by);
                if progress.counted.len() > TOKENS_MAX {
                    progress.counted.pop_first();
                }
            }
        }
    }

    /// Forgets what depends on having received every payload. What counts still does.
    pub(super) fn missed(&mut self) {
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::settled::SETTLED_MS_MAX;
    use crate::audit::testing::payload;
    use crate::violation::LISTED_MAX;

    fn check(unsent: &mut Unsent, at: u64, text: &str, tally: &mut Tally) {
        unsent.check(&payload(1, Some(SimTime(at)), &Ok(Command::parse(text).unwrap())), tally);
    }

    /// Returns the tokens that count a while after these payloads, by `stream writer`.
    fn unsent(payloads: &[&str]) -> Vec<(String, u64, Vec<i64>)> {
        let mut unsent = Unsent::default();
        let mut tally = Tally::default();
        for (at, text) in (0..).zip(payloads) {
            match *text {
                "GAP" => unsent.missed(),
                "WAIT" => unsent.settle(Some(SimTime(SETTLED_MS_MAX + at)), &mut tally),
                text => check(&mut unsent, at, text, &mut tally),
            }
        }
        unsent.settle(Some(SimTime(90_000)), &mut tally);
        let mut counted = Vec::new();
        for (stream, writers) in &tally.streams {
            for (writer, counts) in writers.iter().filter(|(_, counts)| counts.unsent > 0) {
                let last = counts.last_unsent.iter().map(|token| token.0).collect();
                counted.push((format!("{stream} {writer}"), counts.unsent, last));
            }
        }
        counted
    }

    const A4: &str = "POSITION to_device a 4 4";
    const B4: &str = "POSITION to_device b 4 4";
    const A5: &str = r#"RDATA to_device a 5 ["@u:h"]"#;
    const A7: &str = r#"RDATA to_device a 7 ["@u:h"]"#;
    const B6: &str = r#"RDATA to_device b 6 ["@u:h"]"#;

    #[test]
    fn a_token_without_a_row_counts_for_the_writer_that_passed_it() {
        assert_eq!(unsent(&[A4, B4, A5, A7]), [("to_device a".to_owned(), 1, vec![6])]);
        assert_eq!(unsent(&[A4, A5, "POSITION to_device a 7 9"]), [("to_device a".to_owned(), 2, vec![6, 7])]);
        let echo = "POSITION to_device b 5 7";
        assert_eq!(unsent(&[A4, B4, A5, A7, echo]), [("to_device a".to_owned(), 1, vec![6])], "another writer's");
        assert!(
            unsent(&[A4, A5, r#"RDATA to_device a batch ["@v:h"]"#, r#"RDATA to_device a 6 ["@v:h"]"#, A7]).is_empty()
        );
    }

    #[test]
    fn a_token_that_its_writer_declares_unused_does_not_count() {
        assert!(unsent(&[A4, A5, "POSITION to_device a 5 6", A7]).is_empty());
        assert!(unsent(&[A4, A5, "POSITION to_device a 5 9", "POSITION to_device a 9 9"]).is_empty());
    }

    #[test]
    fn a_token_that_comes_late_does_not_count() {
        assert!(unsent(&[A4, B4, A5, A7, B6]).is_empty());
        assert!(unsent(&[A4, B4, A5, A7, "WAIT", B6]).is_empty());
        assert!(unsent(&[A4, B4, B6, A5, A7]).is_empty());
    }

    #[test]
    fn tokens_from_before_the_recording_or_in_a_gap_do_not_count() {
        assert!(unsent(&[A4, A7, B6]).is_empty(), "b may have sent 5");
        assert!(unsent(&[A4, A7, "POSITION to_device b 4 6"]).is_empty(), "b may have sent 5");
        assert!(unsent(&[A4, A5, "GAP", A7]).is_empty());
        assert_eq!(unsent(&[A4, A7, "WAIT", "GAP", A4]), [("to_device a".to_owned(), 2, vec![5, 6])]);
    }

    #[test]
    fn a_stream_in_memory_begins_anew() {
        let typing = |token: i64| format!(r#"RDATA typing a {token} ["!r",[]]"#);
        let lines = [typing(26), "POSITION typing a 0 0".to_owned(), typing(1), typing(3)];
        let expected = [("typing a".to_owned(), 1, vec![2])];
        assert_eq!(unsent(&lines.each_ref().map(String::as_str)), expected);
    }

    #[test]
    fn few_tokens_are_remembered_and_all_are_counted() {
        let mut unsent = Unsent::default();
        let mut tally = Tally::default();
        for token in 0..10 * TOKENS_MAX as i64 {
            let row = format!(r#"RDATA to_device a {} ["@u:h"]"#, 2 * token);
            check(&mut unsent, 10 * token as u64, &row, &mut tally);
        }
        unsent.settle(Some(SimTime(u64::MAX)), &mut tally);
        let progress = &unsent.streams[&StreamName::from("to_device")];
        assert_eq!((progress.waiting.len(), progress.counted.len()), (0, TOKENS_MAX));
        let counts = &tally.streams[&StreamName::from("to_device")][&InstanceName::from("a")];
        assert_eq!((counts.unsent, counts.last_unsent.len()), (10 * TOKENS_MAX as u64 - 1, LISTED_MAX));
        // A leap is no row that was lost.
        let leap = format!("POSITION to_device a {0} {0}", i64::MAX);
        check(&mut unsent, u64::MAX, &leap, &mut tally);
        assert!(unsent.streams[&StreamName::from("to_device")].waiting.is_empty());
    }
}
