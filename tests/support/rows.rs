//! Recorded rows, written to the database as their writers wrote them.

use rusqlite::Transaction;
use serde_json::Value;
use squall::store::account_data::{self, Datum};
use squall::store::to_device::{self, Message};
use squall::store::{caches, events, presence, receipts};
use squall_protocol::rows::{EventsRow, Row};
use squall_protocol::{InstanceName, Token};

/// Writes to the database the change that `row` reports, as `writer` wrote it under `token`.
///
/// # Panics
/// Panics if `row` stands for no row of the database: typing is not stored, `state-all` does not name its rows, and other
/// streams have no table.
pub(crate) fn put(tx: &Transaction<'_>, writer: &InstanceName, token: Token, row: &Row) -> rusqlite::Result<()> {
    match row.clone() {
        Row::Events(EventsRow::Event(row)) => {
            if events::token_of(tx, &row.event_id)?.is_some() {
                let changed = events::mark_ex_outlier(tx, writer, token, &row.event_id)?;
                assert_eq!(changed, Some(row), "an event comes again when it stops being an outlier");
                return Ok(());
            }
            events::persist(tx, writer, &[(token, row)], &[])
        }
        Row::Events(EventsRow::State(row)) => events::persist(tx, writer, &[], &[(token, row)]),
        Row::Caches(row) => caches::insert(tx, writer, [(token, row)]),
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
        row => panic!("the database has no row for {row:?}"),
    }
}
