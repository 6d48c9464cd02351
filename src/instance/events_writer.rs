//! Persisting events: what makes the events stream grow.

use std::collections::BTreeMap;
use std::rc::Rc;

use rusqlite::Transaction;
use serde_json::Value;

use super::stream_writer::{Once, PersistError, StreamWriter, Written, persist_together};
use crate::env::Env;
use crate::protocol::Token;
use crate::store::{NewEvent, StateDelta, cache_invalidation, events};
use crate::streams::caches::{CURRENT_STATE, MEMBERS_PER_ROW_MAX};
use crate::streams::events::{EventRow, StateRow};
use crate::streams::{CachesRow, EventsRow, Json, Row};

/// What is persisted under one token: an event, the changes of current state that it brings, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The event.
    pub event: Option<NewEvent>,
    /// The entries of current state that change.
    pub state: Vec<StateDelta>,
}

/// Persists events under this instance's tokens.
pub struct EventsWriter {
    events: Rc<StreamWriter>,
    caches: Rc<StreamWriter>,
    env: Env,
}

impl EventsWriter {
    /// A writer of both streams: state that changes also makes caches stale.
    pub fn new(events: Rc<StreamWriter>, caches: Rc<StreamWriter>, env: Env) -> Rc<Self> {
        Rc::new(EventsWriter { events, caches, env })
    }

    /// Persists `writes` in one transaction, each under a token of its own, and returns the last one. An event that is
    /// there already stays as it is, with the token it has (Synapse #8476).
    ///
    /// # Panics
    /// If there is nothing to persist.
    pub async fn persist(&self, writes: Vec<Write>) -> Result<Token, PersistError> {
        self.persist_once(None, writes).await
    }

    /// Persists like [`persist`](Self::persist), but only once for each request.
    ///
    /// # Panics
    /// If there is nothing to persist.
    pub async fn persist_once(&self, once: Option<Once>, writes: Vec<Write>) -> Result<Token, PersistError> {
        let stale = stale_state(&writes, self.env.clock.now_ms() as i64);
        let mut parts = vec![(Rc::clone(&self.events), writes.len())];
        if !stale.is_empty() {
            parts.push((Rc::clone(&self.caches), stale.len()));
        }
        let writer = self.events.instance().clone();
        let persist = move |tx: &Transaction<'_>, tokens: &[Vec<Token>]| {
            Written::once(tx, once.as_ref(), || {
                let (mut rows, mut last) = (Vec::new(), Token::default());
                for (token, write) in tokens[0].iter().zip(&writes) {
                    let there = write.event.as_ref().map(|event| events::token_of(tx, &event.event_id)).transpose()?;
                    if let Some(there) = there.flatten() {
                        last = last.max(there);
                        continue;
                    }
                    let event = write.event.clone().map(|event| (*token, event));
                    let deltas: Vec<_> = write.state.iter().map(|delta| (*token, delta.clone())).collect();
                    events::persist(tx, &writer, event.as_slice(), &deltas)?;
                    rows.extend(rows_of(write).map(|row| (*token, row)));
                    last = last.max(*token);
                }
                if let Some(tokens) = tokens.get(1).filter(|_| !rows.is_empty()) {
                    cache_invalidation::invalidate(tx, &writer, tokens.iter().copied().zip(stale.iter().cloned()))?;
                    rows.extend(tokens.iter().copied().zip(stale.iter().cloned().map(Row::Caches)));
                }
                Ok(Written { rows, reply: last })
            })
        };
        persist_together("persist_events", parts, persist).await
    }

    /// Makes an outlier an ordinary event, as happens when the state of its room at it becomes known. Gives the token
    /// that says so; nothing does if there is no such outlier.
    pub async fn mark_ex_outlier(&self, event_id: String) -> Result<Option<Token>, PersistError> {
        let writer = self.events.instance().clone();
        let mark = move |tx: &Transaction<'_>, tokens: &[Token]| {
            let event = events::mark_ex_outlier(tx, &writer, tokens[0], &event_id)?;
            let reply = event.is_some().then_some(tokens[0]);
            let rows = event.into_iter().map(|event| (tokens[0], Row::Events(EventsRow::Event(event))));
            Ok(Written { rows: rows.collect(), reply })
        };
        self.events.persist("mark_ex_outlier", 1, mark).await
    }
}

/// The rows of `events` that `write` makes.
fn rows_of(write: &Write) -> impl Iterator<Item = Row> {
    let event = write.event.clone().map(|event| {
        EventsRow::Event(EventRow {
            event_id: event.event_id,
            room_id: event.room_id,
            kind: event.kind,
            state_key: event.state_key,
            redacts: event.redacts,
            relates_to: event.relates_to,
            membership: event.membership,
            rejected: event.rejected,
            outlier: event.outlier,
        })
    });
    let state = write.state.iter().cloned().map(|StateDelta { room_id, kind, state_key, event_id }| {
        EventsRow::State(StateRow { room_id, kind, state_key, event_id })
    });
    event.into_iter().chain(state).map(Row::Events)
}

/// What `writes` make stale: the current state of each room whose state changes, with the members that change, a few in
/// each row.
fn stale_state(writes: &[Write], now_ms: i64) -> Vec<CachesRow> {
    let mut rooms: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for delta in writes.iter().flat_map(|write| &write.state) {
        let members = rooms.entry(&delta.room_id).or_default();
        members.extend((delta.kind == "m.room.member").then_some(delta.state_key.as_str()));
    }
    let row = |room_id: &str, members: &[&str]| {
        let keys: Vec<Value> = [room_id].iter().chain(members).map(|key| Value::from(*key)).collect();
        CachesRow { cache: CURRENT_STATE.into(), keys: Some(Json(keys.into())), invalidated_ms: Some(now_ms) }
    };
    let rows = rooms.iter().flat_map(|(room_id, members)| {
        let nobody = members.is_empty().then(|| row(room_id, &[]));
        nobody.into_iter().chain(members.chunks(MEMBERS_PER_ROW_MAX).map(|some| row(room_id, some)))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(room_id: &str, kind: &str, state_key: String) -> StateDelta {
        StateDelta { room_id: room_id.into(), kind: kind.into(), state_key, event_id: None }
    }

    #[test]
    fn a_room_whose_state_changes_is_stale_with_its_members_fifty_a_row() {
        let members = (0..101).map(|n| state("!a", "m.room.member", format!("@{n}")));
        let topic = state("!b", "m.room.topic", String::new());
        let write = Write { event: None, state: members.chain([topic]).collect() };
        let stale = stale_state(&[write], 7);
        let named = |row: &CachesRow| row.keys.as_ref().unwrap().0.as_array().unwrap().len();
        assert_eq!(stale.iter().map(named).collect::<Vec<_>>(), [51, 51, 2, 1]);
        assert_eq!(stale[3].to_json(), serde_json::json!(["cs_cache_fake", ["!b"], 7]));
    }
}
