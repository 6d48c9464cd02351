//! The position of a reader in a stream with several writers.
//!
//! A single number would hold every reader back to the slowest writer. So a position is the number up to which all writers
//! are complete, and the writers known to be further (Synapse #8439).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{InstanceName, Token};

/// A position per writer: `ahead` where it names the writer, `min` for every other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct VectorPosition {
    min: Token,
    ahead: BTreeMap<InstanceName, Token>,
}

impl VectorPosition {
    /// Creates the position in which every writer is at `min` or, if that is greater, at its token in `ahead`.
    pub fn new(min: Token, mut ahead: BTreeMap<InstanceName, Token>) -> Self {
        // One position has one form, so that equal positions compare equal.
        ahead.retain(|_, token| *token > min);
        VectorPosition { min, ahead }
    }

    /// Returns the token up to which every writer is complete.
    pub fn min(&self) -> Token {
        self.min
    }

    /// Returns the writers that are past [`min`](Self::min).
    pub fn ahead(&self) -> &BTreeMap<InstanceName, Token> {
        &self.ahead
    }

    /// Returns the token up to which `writer` is complete.
    pub fn position_of(&self, writer: &InstanceName) -> Token {
        self.ahead.get(writer).copied().unwrap_or(self.min)
    }

    /// Returns the highest token of any writer.
    pub fn max(&self) -> Token {
        self.ahead.values().copied().fold(self.min, Token::max)
    }

    /// Returns true if a token of `writer` is after `from` and not after this position.
    pub fn is_news(&self, from: &VectorPosition, writer: &InstanceName, token: Token) -> bool {
        from.position_of(writer) < token && token <= self.position_of(writer)
    }

    /// Returns the same position, with no writer past `bound`.
    pub fn bounded(&self, bound: Token) -> VectorPosition {
        let ahead = self.ahead.iter().map(|(writer, token)| (writer.clone(), bound.min(*token)));
        VectorPosition::new(self.min.min(bound), ahead.collect())
    }

    /// Returns the least position that is past both.
    pub fn merge(&self, other: &VectorPosition) -> VectorPosition {
        let mut ahead = self.ahead.clone();
        for (writer, &token) in &other.ahead {
            let mine = ahead.entry(writer.clone()).or_insert(token);
            *mine = token.max(*mine);
        }
        VectorPosition::new(self.min.max(other.min), ahead)
    }

    /// Returns true if no writer is further here than in `other`.
    pub fn is_within(&self, other: &VectorPosition) -> bool {
        self.min <= other.min && self.ahead.iter().all(|(writer, token)| *token <= other.position_of(writer))
    }
}

/// One position is before another if no writer is further in it. Two positions that are each ahead of the other have no
/// order.
impl PartialOrd for VectorPosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.is_within(other), other.is_within(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(min: i64, ahead: &[(&str, i64)]) -> VectorPosition {
        let ahead = ahead.iter().map(|&(writer, token)| (writer.into(), Token(token))).collect();
        VectorPosition::new(Token(min), ahead)
    }

    #[test]
    fn a_writer_not_past_the_minimum_is_not_named() {
        assert_eq!(position(5, &[("a", 5), ("b", 3)]), position(5, &[]));
        assert_eq!(position(5, &[("a", 7)]).position_of(&"b".into()), Token(5));
    }

    #[test]
    fn a_token_is_news_if_its_writer_wrote_it_after_one_position_and_not_after_the_other() {
        let from = position(5, &[("a", 7)]);
        let to = position(8, &[("a", 9)]);
        let news = |writer: &str| -> Vec<i64> {
            (4..=10).filter(|&token| to.is_news(&from, &writer.into(), Token(token))).collect()
        };
        assert_eq!(news("a"), [8, 9]);
        assert_eq!(news("b"), [6, 7, 8]);
    }

    #[test]
    fn merging_takes_the_greater_minimum_and_the_greater_position_of_each_writer() {
        let merged = position(5, &[("a", 7), ("b", 6)]).merge(&position(6, &[("b", 9), ("c", 7)]));
        assert_eq!(merged, position(6, &[("a", 7), ("b", 9), ("c", 7)]));
    }

    #[test]
    fn positions_that_are_each_ahead_for_some_writer_have_no_order() {
        let a = position(5, &[("a", 7)]);
        let b = position(5, &[("b", 7)]);
        assert_eq!(a.partial_cmp(&b), None);
        assert!(a < a.merge(&b) && b < a.merge(&b));
    }

    #[test]
    fn a_lower_minimum_is_behind_for_the_writers_that_are_not_named() {
        assert_eq!(position(4, &[("a", 9)]).partial_cmp(&position(5, &[("a", 7)])), None);
        assert!(position(4, &[("a", 7)]) < position(5, &[("a", 7)]));
    }
}
