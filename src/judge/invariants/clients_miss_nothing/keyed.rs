//! What clients are told of receipts, account data and presence: for each key the newest.
//!
//! No false alarm: between reading and answering a row may be overwritten, so only what is there when the answer comes is
//! due. It was there when the client was served, for nothing at or below the answer's position was committed later: that
//! is `tokens_never_go_back`'s to check.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use super::Difference;
use crate::protocol::{InstanceName, Token};
use crate::store::VectorPosition;
use crate::streams::{AccountDataRow, Row};

/// Every row of one stream that was committed.
#[derive(Debug, Default)]
pub(super) struct Keyed {
    rows: BTreeMap<Token, (InstanceName, Row)>,
    /// The rows that are there now.
    newest: BTreeMap<String, Token>,
    present: BTreeMap<Token, String>,
}

impl Keyed {
    /// A row was committed.
    pub fn committed(&mut self, writer: &InstanceName, token: Token, row: &Row) {
        let Some(key) = row.key() else { return };
        self.rows.insert(token, (writer.clone(), row.clone()));
        // Transactions may commit in another order than their tokens have.
        let before = self.newest.get(&key).copied();
        if before.is_none_or(|before| before < token) {
            before.map(|before| self.present.remove(&before));
            self.newest.insert(key.clone(), token);
            self.present.insert(token, key);
        }
    }

    /// Compares what a client of `user_id` was told with what there is in `(since, next]`.
    pub fn judge<'a>(
        &self,
        user_id: &str,
        since: &VectorPosition,
        next: &VectorPosition,
        told: impl Iterator<Item = &'a (Token, Row)>,
    ) -> Result<(), Difference> {
        let is_due = |token: Token| {
            let committed = self.rows.get(&token);
            committed.filter(|(writer, row)| next.is_news(since, writer, token) && concerns(user_id, row))
        };
        let what = |row: &Row| row.to_json().to_string();
        let (from, upto) = (since.min(), next.max().max(since.min()));
        let mut present = self.present.range((Excluded(from), Included(upto))).map(|(token, _)| *token);
        let mut expected = std::iter::from_fn(|| present.find(|token| is_due(*token).is_some())).peekable();
        let mut last = Token(0);
        for (token, row) in told {
            if *token <= last || is_due(*token).is_none_or(|(_, committed)| committed != row) {
                return Err(Difference::told_wrongly(*token, what(row)));
            }
            last = *token;
            if let Some(missing) = expected.next_if(|due| due < token) {
                return Err(Difference::not_told(missing, what(&self.rows[&missing].1)));
            }
            expected.next_if_eq(token);
        }
        match expected.next() {
            Some(missing) => Err(Difference::not_told(missing, what(&self.rows[&missing].1))),
            None => Ok(()),
        }
    }
}

/// Account data is its user's own.
fn concerns(user_id: &str, row: &Row) -> bool {
    match row {
        Row::AccountData(AccountDataRow { user_id: owner, .. }) => owner == user_id,
        _ => true,
    }
}
