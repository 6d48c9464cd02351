//! The current state of rooms: the last change of each entry.
//!
//! An entry that was removed stays as one without an event. So a reader of a room's state learns the token of its last
//! change, which may be a removal.

use rusqlite::Transaction;

use squall_protocol::Token;
use squall_protocol::rows::events::StateRow;

/// One entry of a room's current state; without an event if it was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// The token of its last change.
    pub token: Token,
    /// The event type.
    pub kind: String,
    /// The state key.
    pub state_key: String,
    /// The event that is the entry; `None` if it was removed.
    pub event_id: Option<String>,
}

/// Applies `deltas` to the current state of their rooms. An entry that was changed at a higher token stays.
pub fn change(tx: &Transaction<'_>, deltas: &[(Token, StateRow)]) -> rusqlite::Result<()> {
    let mut upsert = tx.prepare_cached(
        "INSERT INTO current_state_events (room_id, type, state_key, event_id, stream_id) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (room_id, type, state_key) DO UPDATE SET
             event_id = excluded.event_id, stream_id = excluded.stream_id
         WHERE current_state_events.stream_id < excluded.stream_id",
    )?;
    for (token, StateRow { room_id, kind, state_key, event_id }) in deltas {
        upsert.execute((room_id, kind, state_key, event_id, token.0))?;
    }
    Ok(())
}

/// Returns every entry that `room_id` ever had.
pub fn in_room(tx: &Transaction<'_>, room_id: &str) -> rusqlite::Result<Vec<StateEntry>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, type, state_key, event_id FROM current_state_events WHERE room_id = ?1
         ORDER BY type, state_key",
    )?;
    let entries = query.query_map([room_id], |row| {
        Ok(StateEntry { token: Token(row.get(0)?), kind: row.get(1)?, state_key: row.get(2)?, event_id: row.get(3)? })
    })?;
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;

    #[test]
    fn the_highest_token_wins_in_any_commit_order_and_a_removal_keeps_its_token() {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        let delta = |state_key: &str, event_id: Option<&str>| StateRow {
            room_id: "!room".into(),
            kind: "m.room.member".into(),
            state_key: state_key.into(),
            event_id: event_id.map(str::to_owned),
        };
        change(&tx, &[(Token(7), delta("@a", Some("$7"))), (Token(8), delta("@b", Some("$8")))]).unwrap();
        change(&tx, &[(Token(5), delta("@a", Some("$5"))), (Token(9), delta("@b", None))]).unwrap();
        let entries = in_room(&tx, "!room").unwrap();
        let entries: Vec<_> = entries.iter().map(|entry| (entry.token.0, entry.event_id.as_deref())).collect();
        assert_eq!(entries, [(7, Some("$7")), (9, None)]);
        assert_eq!(in_room(&tx, "!other").unwrap(), []);
    }
}
