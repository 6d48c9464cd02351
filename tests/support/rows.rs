//! Recorded rows, written as their writers had written them.

use rusqlite::Transaction;
use serde_json::Value;
use squall::protocol::{InstanceName, Token};
use squall::store::account_data::{self, Datum};
use squall::store::to_device::{self, Message};
use squall::store::{NewEvent, StateDelta, cache_invalidation, events, presence, receipts};
use squall::streams::{EventsRow, Row};

/// Puts into the database what `row` tells that `writer` wrote under `token`.
///
/// # Panics
/// If no row of the database is told like that: typing is in none, and nothing tells which rows a `state-all` stands for.
pub fn put(tx: &Transaction<'_>, writer: &InstanceName, token: Token, row: &Row) -> rusqlite::Result<()> {
    match row.clone() {
        Row::Events(EventsRow::Event(row)) => {
            if events::token_of(tx, &row.event_id)?.is_some() {
                let changed = events::mark_ex_outlier(tx, writer, token, &row.event_id)?;
                assert_eq!(changed, Some(row), "an event comes again when it stops being an outlier");
                return Ok(());
            }
            let event = NewEvent {
                event_id: row.event_id,
                room_id: row.room_id,
                kind: row.kind,
                state_key: row.state_key,
                redacts: row.redacts,
                relates_to: row.relates_to,
                membership: row.membership,
                rejected: row.rejected,
                outlier: row.outlier,
            };
            events::persist(tx, writer, &[(token, event)], &[])
        }
        Row::Events(EventsRow::State(row)) => {
            let delta =
                StateDelta { room_id: row.room_id, kind: row.kind, state_key: row.state_key, event_id: row.event_id };
            events::persist(tx, writer, &[], &[(token, delta)])
        }
        Row::Caches(row) => cache_invalidation::invalidate(tx, writer, [(token, row)]),
        Row::Receipts(row) => receipts::insert(tx, writer, token, &row).map(drop),
        Row::Presence(row) => presence::set(tx, writer, token, &row),
        Row::AccountData(row) => {
            let content = Value::from(token.0);
            let datum = Datum { user_id: row.user_id, room_id: row.room_id, kind: row.kind, content };
            account_data::set(tx, writer, token, &datum).map(drop)
        }
        Row::ToDevice(row) => {
            let message = Message {
                user_id: row.entity,
                device_id: "DEVICE".into(),
                message_id: token.to_string(),
                content: Value::Null,
            };
            to_device::add(tx, writer, token, &[message])
        }
        Row::Events(EventsRow::StateAll(_)) | Row::Typing(_) => panic!("no row of the database: {row:?}"),
    }
}
