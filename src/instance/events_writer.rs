//! Persists events: writes the rows of the events stream.

use std::collections::BTreeMap;
use std::rc::Rc;

use rusqlite::Transaction;
use serde_json::Value;

use super::stream_writer::{IdempotencyKey, PersistError, StreamWriter, Written, persist_together};
use crate::observer::Env;
use crate::store::{caches, events};
use squall_protocol::rows::caches::{CURRENT_STATE, MEMBERS_PER_ROW_MAX};
use squall_protocol::rows::events::{EventRow, StateRow};
use squall_protocol::rows::{CachesRow, EventsRow, Json, Row};
use squall_protocol::{InstanceName, Token};

/// The content of one token: an event, the changes of current state that it causes, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The event.
    pub event: Option<EventRow>,
    /// The entries of current state that change.
    pub state: Vec<StateRow>,
}

/// Persists events under this instance's tokens.
pub struct EventsWriter {
    events: Rc<StreamWriter>,
    caches: Rc<StreamWriter>,
    env: Env,
}

impl EventsWriter {
    /// Returns a writer of both streams: a change of state also invalidates caches.
    pub(super) fn new(events: Rc<StreamWriter>, caches: Rc<StreamWriter>, env: Env) -> Rc<Self> {
        Rc::new(EventsWriter { events, caches, env })
    }

    /// Persists `writes` in one transaction, each under a token of its own, and returns the last token. An event that
    /// exists already stays as it is, under its own token (Synapse #8476). An outlier that is persisted again as an ordinary
    /// event becomes one, and its change of state takes effect (Synapse #8605, #17635).
    ///
    /// # Panics
    /// If there is nothing to persist.
    pub async fn persist(&self, writes: Vec<Write>) -> Result<Token, PersistError> {
        self.persist_once(None, writes).await
    }

    /// Persists like [`persist`](Self::persist), but only once for each idempotency key.
    ///
    /// # Panics
    /// If there is nothing to persist.
    pub async fn persist_once(&self, key: Option<IdempotencyKey>, writes: Vec<Write>) -> Result<Token, PersistError> {
        let invalidated = invalidations(&writes, self.env.clock.now_ms() as i64);
        let mut parts = vec![(Rc::clone(&self.events), writes.len())];
        if !invalidated.is_empty() {
            parts.push((Rc::clone(&self.caches), invalidated.len()));
        }
        let writer = self.events.instance().clone();
        let persist = move |tx: &Transaction<'_>, tokens: &[Vec<Token>]| {
            Written::once(tx, key.as_ref(), || {
                let mut rows = Vec::new();
                let mut standing = Vec::with_capacity(writes.len());
                for (token, write) in tokens[0].iter().zip(&writes) {
                    let (last, rows_of_write) = persist_one(tx, &writer, *token, write)?;
                    standing.push(last);
                    rows.extend(rows_of_write.map(|row| (*token, row)));
                }
                if let Some(tokens) = tokens.get(1).filter(|_| !rows.is_empty()) {
                    caches::insert(tx, &writer, tokens.iter().copied().zip(invalidated.iter().cloned()))?;
                    rows.extend(tokens.iter().copied().zip(invalidated.iter().cloned().map(Row::Caches)));
                }
                Ok(Written::standing(rows, &tokens[0], standing))
            })
        };
        persist_together("persist_events", parts, persist).await
    }

    /// Makes an outlier an ordinary event, as happens when the room's state at the event becomes known. Returns the token
    /// of the change, or none if there is no such outlier.
    pub async fn mark_ex_outlier(&self, event_id: String) -> Result<Option<Token>, PersistError> {
        let writer = self.events.instance().clone();
        let mark = move |tx: &Transaction<'_>, tokens: &[Token]| {
            let event = events::mark_ex_outlier(tx, &writer, tokens[0], &event_id)?;
            let reply = event.is_some().then_some(tokens[0]);
            let rows = event.into_iter().map(|event| (tokens[0], Row::Events(EventsRow::Event(event))));
            Ok(Written::new(rows.collect(), reply))
        };
        self.events.persist("mark_ex_outlier", 1, mark).await
    }
}

/// Persists one write under `token`. Returns the token of its last row, and the rows under `token`: none if the event
/// exists and stays as it is.
fn persist_one(
    tx: &Transaction<'_>,
    writer: &InstanceName,
    token: Token,
    write: &Write,
) -> rusqlite::Result<(Token, impl Iterator<Item = Row> + use<>)> {
    let (mut new, mut former_outlier) = (None, None);
    if let Some(event) = &write.event {
        match events::token_of(tx, &event.event_id)? {
            None => new = Some((token, event.clone())),
            Some(known) => {
                if !event.outlier {
                    former_outlier = events::mark_ex_outlier(tx, writer, token, &event.event_id)?;
                }
                if former_outlier.is_none() {
                    return Ok((known, rows_of(None, Vec::new())));
                }
            }
        }
    }
    let deltas: Vec<_> = write.state.iter().map(|delta| (token, delta.clone())).collect();
    events::persist(tx, writer, new.as_slice(), &deltas)?;
    let event = new.map(|(_, event)| event).or(former_outlier);
    Ok((token, rows_of(event, write.state.clone())))
}

/// Returns the rows of the events stream for an event and the entries of state that change.
fn rows_of(event: Option<EventRow>, state: Vec<StateRow>) -> impl Iterator<Item = Row> {
    let event = event.map(EventsRow::Event);
    let state = state.into_iter().map(EventsRow::State);
    event.into_iter().chain(state).map(Row::Events)
}

/// Returns the cache invalidations for `writes`: the current state of each room whose state changes, with the members that
/// change, at most [`MEMBERS_PER_ROW_MAX`] in each row.
fn invalidations(writes: &[Write], now_ms: i64) -> Vec<CachesRow> {
    let mut rooms: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for delta in writes.iter().flat_map(|write| &write.state) {
        let members = rooms.entry(&delta.room_id).or_default();
        members.extend((delta.kind == "m.room.member").then_some(delta.state_key.as_str()));
    }
    let mut rows = Vec::new();
    for (room_id, members) in rooms {
        if members.is_empty() {
            rows.push(invalidation(room_id, &[], now_ms));
        }
        for some in members.chunks(MEMBERS_PER_ROW_MAX) {
            rows.push(invalidation(room_id, some, now_ms));
        }
    }
    rows
}

/// Returns the invalidation of a room's current state, with these of its members.
fn invalidation(room_id: &str, members: &[&str], now_ms: i64) -> CachesRow {
    let keys: Vec<Value> = [room_id].iter().chain(members).map(|key| Value::from(*key)).collect();
    CachesRow { cache: CURRENT_STATE.into(), keys: Some(Json(keys.into())), invalidated_ms: Some(now_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(room_id: &str, kind: &str, state_key: String) -> StateRow {
        StateRow { room_id: room_id.into(), kind: kind.into(), state_key, event_id: None }
    }

    #[test]
    fn a_room_whose_state_changes_is_invalidated_with_its_members_fifty_a_row() {
        let members = (0..101).map(|n| state("!a", "m.room.member", format!("@{n}")));
        let topic = state("!b", "m.room.topic", String::new());
        let write = Write { event: None, state: members.chain([topic]).collect() };
        let invalidated = invalidations(&[write], 7);
        let named = |row: &CachesRow| row.keys.as_ref().unwrap().0.as_array().unwrap().len();
        assert_eq!(invalidated.iter().map(named).collect::<Vec<_>>(), [51, 51, 2, 1]);
        assert_eq!(
            invalidated[3].write(serde_json::value::Serializer).unwrap(),
            serde_json::json!(["cs_cache_fake", ["!b"], 7])
        );
    }
}
