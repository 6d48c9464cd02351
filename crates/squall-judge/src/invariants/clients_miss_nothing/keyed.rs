//! Receipts, account data and presence in answers: the newest row of each key.
//!
//! No false alarm: a row may be overwritten between the read and the answer, so only the rows that remain when the answer
//! arrives are due. They existed when the client was served, because no row at or below the answer's position was
//! committed later: `tokens_never_go_back` checks that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

use super::difference::Difference;
use crate::due::{Key, Position, is_due, key};
use squall_protocol::rows::{AccountDataRow, Row};
use squall_protocol::{InstanceName, Token};

/// The committed rows of one stream.
#[derive(Debug, Default)]
pub(super) struct Keyed {
    rows: BTreeMap<Token, (InstanceName, Row)>,
    /// The newest token of each key.
    newest: BTreeMap<Key, Token>,
    /// The tokens whose row was not overwritten.
    present: BTreeSet<Token>,
}

impl Keyed {
    /// Records a committed row.
    pub(super) fn committed(&mut self, writer: &InstanceName, token: Token, row: &Row) {
        let Some(key) = key(row) else { return };
        self.rows.insert(token, (writer.clone(), row.clone()));
        // Transactions may commit in another order than their tokens have.
        let before = self.newest.get(&key).copied();
        if before.is_none_or(|before| before < token) {
            if let Some(before) = before {
                self.present.remove(&before);
            }
            self.newest.insert(key, token);
            self.present.insert(token);
        }
    }

    /// Compares the rows that a client of `user_id` got with the committed ones in `(since, next]`.
    pub(super) fn judge<'a>(
        &self,
        user_id: &str,
        since: &Position<'_>,
        next: &Position<'_>,
        answered: impl Iterator<Item = &'a (Token, Row)>,
    ) -> Result<(), Difference> {
        let due_row = |token: Token| {
            let (writer, row) = self.rows.get(&token)?;
            (is_due(since, next, writer, token) && concerns(user_id, row)).then_some(row)
        };
        let upto = next.highest().max(since.lowest());
        let present = self.present.range((Excluded(since.lowest()), Included(upto)));
        let mut expected = present.copied().filter_map(|token| Some((token, due_row(token)?))).peekable();
        let mut last = Token(0);
        for (token, row) in answered {
            if *token <= last || due_row(*token) != Some(row) {
                return Err(Difference::told_wrongly(*token, text(row)));
            }
            last = *token;
            if let Some((missing, row)) = expected.next_if(|(due, _)| due < token) {
                return Err(Difference::not_told(missing, text(row)));
            }
            expected.next_if(|(due, _)| due == token);
        }
        match expected.next() {
            Some((missing, row)) => Err(Difference::not_told(missing, text(row))),
            None => Ok(()),
        }
    }
}

fn text(row: &Row) -> String {
    row.to_json().to_string()
}

/// Returns true if clients of `user_id` get this row: account data is private to its user.
fn concerns(user_id: &str, row: &Row) -> bool {
    match row {
        Row::AccountData(AccountDataRow { user_id: owner, .. }) => owner == user_id,
        _ => true,
    }
}
