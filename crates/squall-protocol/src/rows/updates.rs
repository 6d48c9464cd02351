//! The answer to a catch-up query: the rows of a writer after one token, up to another.

use super::Row;
use crate::names::Token;

/// The number of rows a catch-up query aims to return. It may return more to keep a token whole.
pub const ROWS_TARGET: usize = 100;

/// The rows after `from` and not after `upto`, or the first part of them.
///
/// The contract (Synapse #7337, #7358): rows ascend by token, no row is outside `(from, upto]`, and **every** row of
/// every token up to the returned `upto` is among them. A limited answer has made progress: query again from its `upto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updates {
    /// The rows with their tokens, ascending.
    pub rows: Vec<(Token, Row)>,
    /// The token up to which the answer is complete.
    pub upto: Token,
    /// True if there may be more rows beyond `upto`.
    pub limited: bool,
}

impl Updates {
    /// Returns the answer that a range which ends at `upto` holds no row.
    pub fn empty(upto: Token) -> Self {
        Updates { rows: Vec::new(), upto, limited: false }
    }

    /// Returns the answer of a query for the rows up to `upto` with a limit of `rows_max`, for a table in which no two
    /// rows share a token.
    pub fn one_row_per_token(rows: Vec<(Token, Row)>, upto: Token, rows_max: usize) -> Self {
        debug_assert!(rows.is_sorted_by(|one, next| one.0 < next.0));
        match rows.last() {
            Some((last, _)) if rows.len() >= rows_max => Updates { upto: *last, limited: *last < upto, rows },
            _ => Updates { rows, upto, limited: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::AccountDataRow;

    fn updates(tokens: &[i64], upto: i64) -> (i64, bool) {
        let row = || Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "m.tag".into() });
        let rows = tokens.iter().map(|token| (Token(*token), row())).collect();
        let updates = Updates::one_row_per_token(rows, Token(upto), 3);
        assert_eq!(updates.rows.len(), tokens.len());
        (updates.upto.0, updates.limited)
    }

    #[test]
    fn an_answer_at_the_limit_is_complete_up_to_its_last_row() {
        assert_eq!(updates(&[], 9), (9, false));
        assert_eq!(updates(&[4, 6], 9), (9, false));
        assert_eq!(updates(&[4, 6, 7], 9), (7, true));
        assert_eq!(updates(&[4, 6, 9], 9), (9, false), "no row is beyond it: a second query would bring nothing");
    }
}
