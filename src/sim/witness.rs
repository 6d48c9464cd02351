//! What was committed, told by SQLite itself.
//!
//! SQLite's update hook names every row a transaction inserts. Once it has committed, those rows are read back and given
//! to the judge in the form they must have on the wire. Neither the stack's word nor its code is needed for that, save
//! the SQL that inserted them.

use std::sync::mpsc;

use rusqlite::hooks::Action;
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};

use crate::protocol::{InstanceName, StreamName, Token};

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

/// A table whose rows are in the events stream, in the order their rows have at one token: "ev" before "state"
/// (Synapse merges by token and then by row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Events,
    ExOutliers,
    StateDeltas,
}

impl Source {
    fn of_table(table: &str) -> Option<Source> {
        match table {
            "events" => Some(Source::Events),
            "ex_outlier_stream" => Some(Source::ExOutliers),
            "current_state_delta_stream" => Some(Source::StateDeltas),
            _ => None,
        }
    }

    /// Reads the row with a given rowid. Tokens of zero and below belong to the backfill stream.
    fn query(self) -> &'static str {
        match self {
            Source::Events => {
                "SELECT instance_name, stream_ordering AS token, event_id, room_id, type, state_key, redacts,
                        relates_to, membership, rejected, outlier
                 FROM events WHERE stream_ordering = ?1 AND stream_ordering > 0"
            }
            Source::ExOutliers => {
                "SELECT o.instance_name, event_stream_ordering AS token, event_id, room_id, type, state_key, redacts,
                        relates_to, membership, rejected, outlier
                 FROM ex_outlier_stream AS o JOIN events USING (event_id)
                 WHERE event_stream_ordering = ?1 AND event_stream_ordering > 0"
            }
            Source::StateDeltas => {
                "SELECT instance_name, stream_id AS token, room_id, type, state_key, event_id
                 FROM current_state_delta_stream WHERE rowid = ?1 AND stream_id > 0"
            }
        }
    }

    fn row(self, row: &Row<'_>) -> rusqlite::Result<Value> {
        let text = |column: &str| row.get::<_, Option<String>>(column);
        if self == Source::StateDeltas {
            return Ok(json!(["state", [text("room_id")?, text("type")?, text("state_key")?, text("event_id")?]]));
        }
        let flag = |column: &str| row.get::<_, bool>(column);
        Ok(json!([
            "ev",
            [
                text("event_id")?,
                text("room_id")?,
                text("type")?,
                text("state_key")?,
                text("redacts")?,
                text("relates_to")?,
                text("membership")?,
                flag("rejected")?,
                flag("outlier")?,
            ]
        ]))
    }
}

/// Collects the rows the open transaction inserts.
pub(super) struct Witness {
    inserted: mpsc::Receiver<(Source, i64)>,
    stream: StreamName,
}

impl Witness {
    /// Watches `connection`, whose tables exist.
    pub(super) fn attach(connection: &mut Connection) -> rusqlite::Result<Self> {
        let (told, inserted) = mpsc::channel();
        connection.update_hook(Some(move |action, _database: &str, table: &str, rowid| {
            if let (Action::SQLITE_INSERT, Some(source)) = (action, Source::of_table(table)) {
                // The receiver is gone when the world ends; nobody asks then.
                let _ = told.send((source, rowid));
            }
        }))?;
        Ok(Witness { inserted, stream: "events".into() })
    }

    /// The transaction was rolled back: its rows never were.
    pub(super) fn forget(&self) {
        self.inserted.try_iter().for_each(drop);
    }

    /// The rows of the transaction that has just committed, by token.
    pub(super) fn committed(&self, connection: &Connection) -> rusqlite::Result<Vec<CommittedRow>> {
        let mut rows = Vec::new();
        for (source, rowid) in self.inserted.try_iter() {
            let read = |row: &Row<'_>| self.read(source, row);
            let row = connection.prepare_cached(source.query())?.query_row([rowid], read).optional()?;
            rows.extend(row.map(|row| (row.token, source, row)));
        }
        rows.sort_by_key(|(token, source, _)| (*token, *source));
        Ok(rows.into_iter().map(|(_, _, row)| row).collect())
    }

    fn read(&self, source: Source, row: &Row<'_>) -> rusqlite::Result<CommittedRow> {
        Ok(CommittedRow {
            stream: self.stream.clone(),
            writer: row.get::<_, String>("instance_name")?.into(),
            token: Token(row.get("token")?),
            row: source.row(row)?,
        })
    }
}
