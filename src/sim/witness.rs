//! What was committed, told by SQLite itself.
//!
//! SQLite's update hook names every row that a transaction writes or removes. Once it has committed, those rows are read
//! back and given to the judge in the form they must have on the wire. Neither the stack's word nor its code is needed for that, save
//! the SQL that inserted them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use rusqlite::hooks::Action;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};

use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::Json;

/// A row that was committed, as followers must get to see it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedRow {
    /// The stream it belongs to.
    pub stream: StreamName,
    /// The instance that wrote it.
    pub writer: InstanceName,
    /// Its token.
    pub token: Token,
    /// The row as it stands in an RDATA.
    pub row: Value,
}

/// A table whose rows are rows of a stream, in the order that these have at one token: "ev" before "state" (Synapse
/// merges by token and then by row).
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

    /// Reads the row with a given rowid: who wrote it, its token, and what it says. Tokens of zero and below belong to
    /// the backfill stream.
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

    /// What the row says that only one request says, if it is of that kind.
    fn said(self, row: &Row<'_>) -> rusqlite::Result<Option<Said>> {
        let text = |column: usize| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
        let (place, words) = match self {
            Table::DeviceInbox => ([text(2)?, text(3)?].join(" "), text(4)?),
            Table::AccountData | Table::RoomAccountData => ([text(2)?, text(3)?, text(4)?].join(" "), text(5)?),
            Table::Receipts => ([text(2)?, text(3)?, text(4)?, text(6)?].join(" "), text(5)?),
            _ => return Ok(None),
        };
        Ok(Some(Said { place, words }))
    }

    /// The row on the wire: the columns from the third on, each as its type has it.
    fn row(self, row: &Row<'_>) -> rusqlite::Result<Value> {
        let text = |column: usize| row.get::<_, Option<String>>(column).map(Value::from);
        let number = |column: usize| row.get::<_, Option<i64>>(column).map(Value::from);
        let flag = |column: usize| row.get::<_, bool>(column).map(Value::from);
        let json =
            |column: usize| row.get::<_, Option<Json>>(column).map(|json| json.map_or(Value::Null, |json| json.0));
        let texts = |columns: std::ops::Range<usize>| columns.map(text).collect::<rusqlite::Result<Vec<_>>>();
        Ok(match self {
            Table::Events | Table::ExOutliers => {
                let mut fields = texts(2..9)?;
                fields.extend([flag(9)?, flag(10)?]);
                json!(["ev", fields])
            }
            Table::StateDeltas => json!(["state", texts(2..6)?]),
            Table::AccountData | Table::RoomAccountData => texts(2..5)?.into(),
            Table::Receipts => texts(2..7)?.into_iter().chain([json(7)?]).collect(),
            Table::Presence => {
                json!([text(2)?, text(3)?, number(4)?, number(5)?, number(6)?, text(7)?, flag(8)?])
            }
            Table::DeviceInbox => json!([text(2)?]),
            Table::Invalidations => json!([text(2)?, json(3)?, number(4)?]),
        })
    }
}

/// Something that only one request of one client says, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// An inbox, a datum, a receipt.
    pub place: String,
    /// What it was made to say.
    pub words: String,
}

/// A message that was put into a device's inbox. The row of its stream names the user alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftMessage {
    /// Its token.
    pub token: Token,
    /// Whose device it is for.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// What its sender calls it.
    pub message_id: String,
}

/// What a transaction did to the rows of streams.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// Rows that were written, by token, those that overwrote others included.
    pub committed: Vec<CommittedRow>,
    /// Messages that were put into inboxes.
    pub messages: Vec<LeftMessage>,
    /// Rows that were removed.
    pub removed: Vec<CommittedRow>,
    /// What it says for clients.
    pub said: Vec<Said>,
}

/// Counts the rows that the open transaction is given, by SQLite's own account.
#[derive(Clone, Default)]
struct RowsRead(Arc<AtomicU64>);

/// Collects what the open transaction does.
pub(super) struct Witness {
    told: mpsc::Receiver<(Action, Table, i64)>,
    /// The rows of inboxes, which a transaction may remove: they can't be read any more when it is told.
    inboxes: RefCell<BTreeMap<i64, CommittedRow>>,
    rows_read: RowsRead,
}

impl Witness {
    /// Watches `connection`, whose tables exist.
    pub(super) fn attach(connection: &mut Connection) -> rusqlite::Result<Self> {
        let (tell, told) = mpsc::channel();
        connection.update_hook(Some(move |action, _database: &str, table: &str, rowid| {
            if let Some(table) = Table::of_name(table) {
                // The receiver is gone when the world ends; nobody asks then.
                let _ = tell.send((action, table, rowid));
            }
        }))?;
        Ok(Witness { told, inboxes: RefCell::default(), rows_read: RowsRead::default() })
    }

    /// From now on the rows that are read on `connection` are counted; or no longer.
    pub(super) fn count_rows_read(&self, connection: &mut Connection, is_counting: bool) -> rusqlite::Result<()> {
        let RowsRead(count) = self.rows_read.clone();
        count.store(0, Ordering::Relaxed);
        let counting = move |_: TraceEvent<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_ROW, is_counting.then_some(counting))
    }

    /// How many rows were read since the counting began.
    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read.0.load(Ordering::Relaxed)
    }

    /// The transaction was rolled back: its rows never were.
    pub(super) fn forget(&self) {
        self.told.try_iter().for_each(drop);
    }

    /// What the transaction that has just committed did.
    pub(super) fn effect(&self, connection: &Connection) -> rusqlite::Result<Effect> {
        let (mut committed, mut removed, mut said, mut messages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (action, table, rowid) in self.told.try_iter() {
            match (action, table) {
                (Action::SQLITE_DELETE, _) => removed.extend(self.inboxes.borrow_mut().remove(&rowid)),
                // An event that ceases to be an outlier keeps its place in the stream; a row of its own says so.
                (Action::SQLITE_UPDATE, Table::Events) => {}
                _ => {
                    let mut read = |row: &Row<'_>| {
                        if table == Table::DeviceInbox {
                            messages.push(message(row)?);
                        }
                        Ok((read(table, row)?, table.said(row)?))
                    };
                    let row = connection.prepare_cached(table.query())?.query_row([rowid], &mut read).optional()?;
                    let Some((row, says)) = row else { continue };
                    said.extend(says);
                    if table == Table::DeviceInbox {
                        self.inboxes.borrow_mut().insert(rowid, row.clone());
                    }
                    committed.push((row.token, table, row));
                }
            }
        }
        committed.sort_by_key(|(token, table, _)| (*token, *table));
        let mut committed: Vec<CommittedRow> = committed.into_iter().map(|(_, _, row)| row).collect();
        // Messages to several devices of a user, under one token, are one row; it is there as long as one of them is.
        let mut notified = BTreeSet::new();
        committed.retain(|row| row.stream.as_str() != "to_device" || notified.insert((row.token, row.row.to_string())));
        removed.retain(|row| !self.inboxes.borrow().values().any(|left| left == row));
        Ok(Effect { committed, messages, removed, said })
    }
}

fn read(table: Table, row: &Row<'_>) -> rusqlite::Result<CommittedRow> {
    Ok(CommittedRow {
        stream: table.stream().into(),
        writer: row.get::<_, String>(0)?.into(),
        token: Token(row.get(1)?),
        row: table.row(row)?,
    })
}

fn message(row: &Row<'_>) -> rusqlite::Result<LeftMessage> {
    Ok(LeftMessage { token: Token(row.get(1)?), user_id: row.get(2)?, device_id: row.get(3)?, message_id: row.get(4)? })
}
