//! The rows that transactions commit, as SQLite itself reports them.
//!
//! SQLite's update hook names every row that a transaction writes or removes. Once the transaction has committed, those rows
//! are read back and given to the judge in the form they must have on the wire. The code of the stack takes no part in that,
//! except the SQL that inserted the rows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use rusqlite::hooks::Action;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::Value;

use crate::store::JsonColumn;
use squall_protocol::{InstanceName, StreamName, Token};

/// A row that was committed, in the form in which followers must apply it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommittedRow {
    /// The stream it belongs to.
    pub stream: StreamName,
    /// The instance that wrote it.
    pub writer: InstanceName,
    /// Its token.
    pub token: Token,
    /// The row, as an RDATA has it.
    pub row: Value,
}

/// A table whose rows are rows of a stream, in the order of the rows at one token: "ev" before "state" (Synapse merges by
/// token and then by row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Events,
    ExOutliers,
    StateDeltas,
    AccountData,
    RoomAccountData,
    Receipts,
    Presence,
    DeviceInbox,
    Invalidations,
}

impl Table {
    fn of_name(table: &str) -> Option<Table> {
        match table {
            "events" => Some(Table::Events),
            "ex_outlier_stream" => Some(Table::ExOutliers),
            "current_state_delta_stream" => Some(Table::StateDeltas),
            "account_data" => Some(Table::AccountData),
            "room_account_data" => Some(Table::RoomAccountData),
            "receipts_linearized" => Some(Table::Receipts),
            "presence_stream" => Some(Table::Presence),
            "device_inbox" => Some(Table::DeviceInbox),
            "cache_invalidation_stream_by_instance" => Some(Table::Invalidations),
            _ => None,
        }
    }

    fn stream(self) -> &'static str {
        match self {
            Table::Events | Table::ExOutliers | Table::StateDeltas => "events",
            Table::AccountData | Table::RoomAccountData => "account_data",
            Table::Receipts => "receipts",
            Table::Presence => "presence",
            Table::DeviceInbox => "to_device",
            Table::Invalidations => "caches",
        }
    }

    /// Returns the query for the row with a given rowid: its writer, its token, and its columns. Tokens of zero and below
    /// belong to the backfill stream.
    fn query(self) -> &'static str {
        match self {
            Table::Events => {
                "SELECT instance_name, stream_ordering, event_id, room_id, type, state_key, redacts, relates_to,
                        membership, rejected, outlier
                 FROM events WHERE stream_ordering = ?1 AND stream_ordering > 0"
            }
            Table::ExOutliers => {
                "SELECT o.instance_name, event_stream_ordering, event_id, room_id, type, state_key, redacts, relates_to,
                        membership, rejected, outlier
                 FROM ex_outlier_stream AS o JOIN events USING (event_id)
                 WHERE event_stream_ordering = ?1 AND event_stream_ordering > 0"
            }
            Table::StateDeltas => {
                "SELECT instance_name, stream_id, room_id, type, state_key, event_id
                 FROM current_state_delta_stream WHERE rowid = ?1 AND stream_id > 0"
            }
            Table::AccountData => {
                "SELECT instance_name, stream_id, user_id, NULL, account_data_type, content
                 FROM account_data WHERE rowid = ?1"
            }
            Table::RoomAccountData => {
                "SELECT instance_name, stream_id, user_id, room_id, account_data_type, content
                 FROM room_account_data WHERE rowid = ?1"
            }
            Table::Receipts => {
                "SELECT instance_name, stream_id, room_id, receipt_type, user_id, event_id, thread_id, data
                 FROM receipts_linearized WHERE rowid = ?1"
            }
            Table::Presence => {
                "SELECT instance_name, stream_id, user_id, state, last_active_ts, last_federation_update_ts,
                        last_user_sync_ts, status_msg, currently_active
                 FROM presence_stream WHERE rowid = ?1"
            }
            Table::DeviceInbox => {
                "SELECT instance_name, stream_id, user_id, device_id, message_id FROM device_inbox WHERE rowid = ?1"
            }
            Table::Invalidations => {
                "SELECT instance_name, stream_id, cache_func, keys, invalidation_ts
                 FROM cache_invalidation_stream_by_instance WHERE stream_id = ?1"
            }
        }
    }

    /// Returns the content of the row that no other request writes, for tables that have some.
    fn unique_write(self, row: &Row<'_>) -> rusqlite::Result<Option<UniqueWrite>> {
        let text = |column: usize| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
        let (place, words) = match self {
            Table::DeviceInbox => ([text(2)?, text(3)?].join(" "), text(4)?),
            Table::AccountData | Table::RoomAccountData => ([text(2)?, text(3)?, text(4)?].join(" "), text(5)?),
            Table::Receipts => ([text(2)?, text(3)?, text(4)?, text(6)?].join(" "), text(5)?),
            _ => return Ok(None),
        };
        Ok(Some(UniqueWrite { place, words }))
    }

    /// Returns the row as it is on the wire: the columns from the third on, each in its own type.
    fn row(self, row: &Row<'_>) -> rusqlite::Result<Value> {
        let text = |column: usize| row.get::<_, Option<String>>(column).map(Value::from);
        let number = |column: usize| row.get::<_, Option<i64>>(column).map(Value::from);
        let flag = |column: usize| row.get::<_, bool>(column).map(Value::from);
        let json = |column: usize| {
            row.get::<_, Option<JsonColumn>>(column).map(|json| json.map_or(Value::Null, |json| json.0))
        };
        let texts = |columns: std::ops::Range<usize>| columns.map(text).collect::<rusqlite::Result<Vec<_>>>();
        Ok(match self {
            Table::Events | Table::ExOutliers => {
                let mut fields = texts(2..9)?;
                fields.extend([flag(9)?, flag(10)?]);
                tagged("ev", fields)
            }
            Table::StateDeltas => tagged("state", texts(2..6)?),
            Table::AccountData | Table::RoomAccountData => texts(2..5)?.into(),
            Table::Receipts => texts(2..7)?.into_iter().chain([json(7)?]).collect(),
            Table::Presence => vec![text(2)?, text(3)?, number(4)?, number(5)?, number(6)?, text(7)?, flag(8)?].into(),
            Table::DeviceInbox => vec![text(2)?].into(),
            Table::Invalidations => vec![text(2)?, json(3)?, number(4)?].into(),
        })
    }
}

/// Content that only one request of one client writes. A second write of it is a request that took effect twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UniqueWrite {
    /// The place of the content: an inbox, a datum, a receipt.
    pub place: String,
    /// The content.
    pub words: String,
}

/// A message that was put into a device's inbox. The row of its stream names only the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InboxMessage {
    /// Its token.
    pub token: Token,
    /// The user of the device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The message id that the sender chose.
    pub message_id: String,
}

/// The effect of a transaction on the rows of streams.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// The rows that were written, by token, including those that overwrote others.
    pub committed: Vec<CommittedRow>,
    /// The messages that were put into inboxes.
    pub messages: Vec<InboxMessage>,
    /// The rows that were removed.
    pub removed: Vec<CommittedRow>,
    /// The content that only one request writes.
    pub unique_writes: Vec<UniqueWrite>,
}

/// The number of rows that the open transaction has read, as SQLite counts them.
#[derive(Clone, Default)]
struct RowsRead(Arc<AtomicU64>);

/// The collector of everything that the open transaction does.
pub(super) struct CommitWitness {
    changes: mpsc::Receiver<(Action, Table, i64)>,
    /// The rows of inboxes. A transaction may remove them, and they cannot be read any more when the hook reports that.
    inboxes: RefCell<BTreeMap<i64, CommittedRow>>,
    rows_read: RowsRead,
}

impl CommitWitness {
    /// Attaches a witness to `connection`, whose tables exist.
    pub(super) fn attach(connection: &mut Connection) -> rusqlite::Result<Self> {
        let (sender, changes) = mpsc::channel();
        connection.update_hook(Some(move |action, _database: &str, table: &str, rowid| {
            if let Some(table) = Table::of_name(table) {
                // The receiver is gone when the world ends.
                let _ = sender.send((action, table, rowid));
            }
        }))?;
        Ok(CommitWitness { changes, inboxes: RefCell::default(), rows_read: RowsRead::default() })
    }

    /// Starts or stops counting the rows that are read on `connection`.
    pub(super) fn count_rows_read(&self, connection: &mut Connection, is_counting: bool) -> rusqlite::Result<()> {
        let RowsRead(count) = self.rows_read.clone();
        count.store(0, Ordering::Relaxed);
        let counting = move |_: TraceEvent<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_ROW, is_counting.then_some(counting))
    }

    /// Returns the number of rows that were read since the counting began.
    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read.0.load(Ordering::Relaxed)
    }

    /// Drops the changes of a transaction that was rolled back.
    pub(super) fn forget(&self) {
        for _ in self.changes.try_iter() {}
    }

    /// Returns the effect of the transaction that has just committed.
    pub(super) fn effect(&self, connection: &Connection) -> rusqlite::Result<Effect> {
        let mut effect = Effect::default();
        let mut committed = Vec::new();
        for (action, table, rowid) in self.changes.try_iter() {
            match (action, table) {
                (Action::SQLITE_DELETE, _) => effect.removed.extend(self.inboxes.borrow_mut().remove(&rowid)),
                // An event that ceases to be an outlier keeps its place in the stream; a row of its own reports that.
                (Action::SQLITE_UPDATE, Table::Events) => {}
                _ => {
                    let read =
                        |row: &Row<'_>| Ok((read(table, row)?, table.unique_write(row)?, inbox_message(table, row)?));
                    let row = connection.prepare_cached(table.query())?.query_row([rowid], read).optional()?;
                    let Some((row, unique_write, message)) = row else { continue };
                    effect.unique_writes.extend(unique_write);
                    effect.messages.extend(message);
                    if table == Table::DeviceInbox {
                        self.inboxes.borrow_mut().insert(rowid, row.clone());
                    }
                    committed.push((row.token, table, row));
                }
            }
        }
        committed.sort_by_key(|(token, table, _)| (*token, *table));
        effect.committed = committed.into_iter().map(|(_, _, row)| row).collect();
        // Messages to several devices of a user, under one token, are one row. It is there while one of them is.
        let mut notified = BTreeSet::new();
        effect
            .committed
            .retain(|row| row.stream.as_str() != "to_device" || notified.insert((row.token, row.row.to_string())));
        effect.removed.retain(|row| !self.inboxes.borrow().values().any(|left| left == row));
        Ok(effect)
    }
}

/// Returns a row of `events`: its kind and its fields.
fn tagged(kind: &str, fields: Vec<Value>) -> Value {
    Value::Array(vec![kind.into(), fields.into()])
}

fn read(table: Table, row: &Row<'_>) -> rusqlite::Result<CommittedRow> {
    Ok(CommittedRow {
        stream: table.stream().into(),
        writer: row.get::<_, String>(0)?.into(),
        token: Token(row.get(1)?),
        row: table.row(row)?,
    })
}

/// Returns the message in a row, if the table is that of the inboxes.
fn inbox_message(table: Table, row: &Row<'_>) -> rusqlite::Result<Option<InboxMessage>> {
    if table != Table::DeviceInbox {
        return Ok(None);
    }
    let token = Token(row.get(1)?);
    Ok(Some(InboxMessage { token, user_id: row.get(2)?, device_id: row.get(3)?, message_id: row.get(4)? }))
}
