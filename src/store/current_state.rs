//! The current state of rooms: for each entry the last change of it.
//!
//! An entry that was removed stays as one without an event, so that whoever reads a room's state learns up to which
//! token it has been changed.

use rusqlite::Transaction;

use super::StateDelta;
use crate::protocol::Token;

/// One entry of a room's current state, or what is left of one that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// When it was last changed.
    pub token: Token,
    /// The event type.
    pub kind: String,
    /// The state key.
    pub state_key: String,
    /// The event that is the entry; none if it was removed.
    pub event_id: Option<String>,
}

/// Makes `deltas` the current state of their rooms, each unless its entry was changed at a higher token.
pub fn change(tx: &Transaction<'_>, deltas: &[(Token, StateDelta)]) -> rusqlite::Result<()> {
    let mut upsert = tx.prepare_cached(
        "INSERT INTO current_state_events (room_id, type, state_key, event_id, stream_id) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (room_id, type, state_key) DO UPDATE SET
             event_id = excluded.event_id, stream_id = excluded.stream_id
         WHERE current_state_events.stream_id < excluded.stream_id",
    )?;
    for (token, StateDelta { room_id, kind, state_key, event_id }) in deltas {
        upsert.execute((room_id, kind, state_key, event_id, token.0))?;
    }
    Ok(())
}

/// Every entry that `room_id` ever had.
pub fn of_room(tx: &Transaction<'_>, room_id: &str) -> rusqlite::Result<Vec<StateEntry>> {
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
    fn the_highest_token_stands_whatever_commits_last_and_a_removal_leaves_its_token() {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        let delta = |state_key: &str, event_id: Option<&str>| StateDelta {
            room_id: "!room".into(),
            kind: "m.room.member".into(),
            state_key: state_key.into(),
            event_id: event_id.map(str::to_owned),
        };
        change(&tx, &[(Token(7), delta("@a", Some("$7"))), (Token(8), delta("@b", Some("$8")))]).unwrap();
        change(&tx, &[(Token(5), delta("@a", Some("$5"))), (Token(9), delta("@b", None))]).unwrap();
        let entries = of_room(&tx, "!room").unwrap();
        let entries: Vec<_> = entries.iter().map(|entry| (entry.token.0, entry.event_id.as_deref())).collect();
        assert_eq!(entries, [(7, Some("$7")), (9, None)]);
        assert_eq!(of_room(&tx, "!other").unwrap(), []);
    }
}
