//! Comparison of the rows applied under one token with the rows committed under it.
//!
//! They are the same rows in the order of their types: `ev` before `state` before `state-all`. Within a type any order is
//! right, because nothing orders such rows in the database. The one exception is `state-all` (Synapse #16510): all state
//! rows of a room may be left out where such a row has come in their place, or may yet come.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::due::{state_all_room, state_room};
use squall_protocol::rows::{EventsRow, Row};

/// A difference between the rows applied under a token and the committed ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Differs {
    /// A committed row was not applied.
    Missing(Box<Value>),
    /// A row was applied that was not committed, or was applied before.
    Unexpected(Box<Value>),
    /// The rows are the same, but a type comes before one that it should follow.
    Order,
}

/// Completes the sentence of the violation.
impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Differs::Missing(row) => write!(f, "; missing: {row}"),
            Differs::Unexpected(row) => write!(f, "; not committed: {row}"),
            Differs::Order => write!(f, "; the rows are the same, in the wrong order"),
        }
    }
}

/// Compares the rows `applied` under a token with those `committed`, which are in order.
///
/// Returns the rooms whose state rows were left out; allowed for rooms of which `applied` has a `state-all` row, and for
/// those of which one `may_come`.
pub(super) fn compare<'a>(
    committed: &'a [Row],
    applied: &'a [Row],
    may_come: impl Fn(&str) -> bool,
) -> Result<BTreeSet<&'a str>, Differs> {
    if committed == applied && !applied.iter().any(|row| state_all_room(row).is_some()) {
        return Ok(BTreeSet::new());
    }
    let anew: Vec<&Row> = applied.iter().filter(|row| state_all_room(row).is_some()).collect();
    let mut plain: Vec<&Row> = applied.iter().filter(|row| state_all_room(row).is_none()).collect();
    let given: BTreeSet<&str> = plain.iter().filter_map(|row| state_room(row)).collect();
    let mut came: BTreeSet<&str> = anew.iter().filter_map(|row| state_all_room(row)).collect();

    let mut left_out: BTreeSet<&str> = committed.iter().filter_map(state_room).collect();
    left_out.retain(|room| !given.contains(room) && (came.contains(room) || may_come(room)));
    let expected = committed.iter().filter(|row| state_room(row).is_none_or(|room| !left_out.contains(room)));
    let expected: Vec<&Row> = expected.collect();
    plain.sort();

    let mut stands_for_some = |room: &str| left_out.contains(room) && came.remove(room);
    let unfounded = anew.iter().copied().find(|row| !state_all_room(row).is_some_and(&mut stands_for_some));
    if plain == expected && unfounded.is_none() && applied.is_sorted_by_key(type_rank) {
        return Ok(left_out);
    }
    let boxed = |row: &Row| Box::new(row.to_json());
    let missing = surplus(&expected, &plain).map(|row| Differs::Missing(boxed(row)));
    let unexpected = || surplus(&plain, &expected).or(unfounded).map(|row| Differs::Unexpected(boxed(row)));
    Err(missing.or_else(unexpected).unwrap_or(Differs::Order))
}

/// Returns the first row that is more often in `these` than in `those`. Both are sorted.
fn surplus<'a>(these: &[&'a Row], those: &[&'a Row]) -> Option<&'a Row> {
    let mut those = those.iter().copied().peekable();
    these.iter().copied().find(|row| {
        while those.next_if(|other| other < row).is_some() {}
        those.next_if(|other| other == row).is_none()
    })
}

/// Returns the place of the row's type among the rows of one token.
fn type_rank(row: &Row) -> u8 {
    match row {
        Row::Events(EventsRow::State(_)) => 1,
        Row::Events(EventsRow::StateAll(_)) => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{event, state, state_all};

    /// The difference, where no `state-all` row can come any more.
    fn difference(committed: &[Row], applied: &[Row]) -> Option<Differs> {
        compare(committed, applied, |_| false).err()
    }

    fn missing(row: Row) -> Option<Differs> {
        Some(Differs::Missing(Box::new(row.to_json())))
    }

    fn unexpected(row: Row) -> Option<Differs> {
        Some(Differs::Unexpected(Box::new(row.to_json())))
    }

    #[test]
    fn the_same_rows_are_the_same_in_any_order_within_a_type() {
        let committed = [event("a"), state("room", "x"), state("room", "y")];
        assert_eq!(difference(&committed, &committed), None);
        assert_eq!(difference(&committed, &[event("a"), state("room", "y"), state("room", "x")]), None);
    }

    #[test]
    fn a_state_row_before_an_event_is_the_wrong_order() {
        let committed = [event("a"), state("room", "x")];
        assert_eq!(difference(&committed, &[state("room", "x"), event("a")]), Some(Differs::Order));
    }

    #[test]
    fn a_row_too_few_or_too_many_is_named() {
        let committed = [event("a"), event("b")];
        assert_eq!(difference(&committed, &[event("a")]), missing(event("b")));
        assert_eq!(difference(&committed, &[event("a"), event("a"), event("b")]), unexpected(event("a")));
        assert_eq!(difference(&committed, &[event("a"), event("c")]), missing(event("b")));
    }

    #[test]
    fn a_state_all_row_stands_for_all_state_rows_of_its_room_and_no_other() {
        let committed = [event("a"), state("other", "x"), state("room", "x"), state("room", "y")];
        assert_eq!(difference(&committed, &[event("a"), state("other", "x"), state_all("room")]), None);
        assert_eq!(difference(&committed, &[event("a"), state_all("room")]), missing(state("other", "x")),);
        let with_one_of_them = [event("a"), state("other", "x"), state("room", "x"), state_all("room")];
        let named = missing(state("room", "y"));
        assert_eq!(difference(&committed, &with_one_of_them), named);
    }

    #[test]
    fn a_state_all_row_that_stands_for_nothing_is_unexpected() {
        assert_eq!(difference(&[event("a")], &[event("a"), state_all("room")]), unexpected(state_all("room")));
        let twice = [state_all("room"), state_all("room")];
        assert_eq!(difference(&[state("room", "x")], &twice), unexpected(state_all("room")));
    }

    #[test]
    fn state_rows_may_only_be_left_out_while_a_state_all_row_may_come() {
        let committed = [event("a"), state("room", "x")];
        let left_out = compare(&committed, &committed[..1], |room| room == "room").unwrap();
        assert_eq!(left_out, BTreeSet::from(["room"]));
        assert_eq!(difference(&committed, &committed[..1]), missing(state("room", "x")));
    }
}
