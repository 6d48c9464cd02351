//! Reading what is new, in one transaction.
//!
//! Of a stream with several writers everything is read between the lowest and the highest position of any of them, and
//! then what is not news is left out, writer by writer: one query, however many writers there are and ever were.

use rusqlite::{Row, Transaction};

use super::token::SyncToken;
use super::{News, RoomEvent};
use crate::protocol::{InstanceName, Token};
use crate::store::account_data::Datum;
use crate::store::{Database, DatabaseError, VectorPosition, to_device};
use crate::streams::{Json, PresenceRow, ReceiptsRow};

/// What to read: of each stream what lies after the first and not after the second position, nothing where there is
/// none.
#[derive(Debug, Clone)]
pub(super) struct Range {
    events: Option<(VectorPosition, VectorPosition)>,
    receipts: Option<(VectorPosition, VectorPosition)>,
    account_data: Option<(Token, Token)>,
    to_device: Option<(Token, Token)>,
    presence: Option<(Token, Token)>,
    /// Messages up to here have arrived at the device.
    acknowledged: Option<Token>,
}

impl Range {
    /// Only the messages that wait for a device which has never synced.
    pub fn first(now: &SyncToken) -> Self {
        Range {
            events: None,
            receipts: None,
            account_data: None,
            to_device: moved(&Token(0), &now.to_device),
            presence: None,
            acknowledged: None,
        }
    }

    /// Everything in `(from, next]`.
    pub fn between(from: &SyncToken, next: &SyncToken, acknowledged: Option<Token>) -> Self {
        Range {
            events: moved(&from.events, &next.events),
            receipts: moved(&from.receipts, &next.receipts),
            account_data: moved(&from.account_data, &next.account_data),
            to_device: moved(&from.to_device, &next.to_device),
            presence: moved(&from.presence, &next.presence),
            acknowledged,
        }
    }

    /// Whether there is nothing to ask the database for.
    pub fn is_empty(&self) -> bool {
        let Range { events, receipts, account_data, to_device, presence, acknowledged } = self;
        events.is_none()
            && receipts.is_none()
            && account_data.is_none()
            && to_device.is_none()
            && presence.is_none()
            && acknowledged.is_none()
    }
}

fn moved<P: PartialEq + Clone>(from: &P, next: &P) -> Option<(P, P)> {
    (from != next).then(|| (from.clone(), next.clone()))
}

/// Reads what is in `range` for a device, after forgetting the messages that it has acknowledged.
pub(super) async fn read(
    database: &Database,
    user_id: &str,
    device_id: &str,
    range: Range,
) -> Result<News, DatabaseError> {
    let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
    let read = move |tx: &Transaction<'_>| {
        let mut news = News::default();
        if let Some(upto) = range.acknowledged {
            to_device::forget(tx, &user_id, &device_id, upto)?;
        }
        if let Some((from, next)) = &range.events {
            news.events = events(tx, from, next)?;
        }
        if let Some((from, next)) = &range.receipts {
            news.receipts = receipts(tx, from, next)?;
        }
        if let Some((from, next)) = range.account_data {
            news.account_data = account_data(tx, &user_id, from, next)?;
        }
        if let Some((from, next)) = range.to_device {
            news.to_device = to_device::inbox(tx, &user_id, &device_id, from, next)?;
        }
        if let Some((from, next)) = range.presence {
            news.presence = presence(tx, from, next)?;
        }
        Ok(news)
    };
    database.transaction("sync", read).await
}

/// The last ids that `sequences` have given.
pub(super) async fn last_allocated<const N: usize>(
    database: &Database,
    sequences: [&'static str; N],
) -> Result<[Token; N], DatabaseError> {
    let read = move |tx: &Transaction<'_>| {
        let mut query = tx.prepare_cached("SELECT last_value FROM sequences WHERE name = ?1")?;
        let mut last = [Token(0); N];
        for (last, sequence) in last.iter_mut().zip(sequences) {
            *last = query.query_row([sequence], |row| row.get(0).map(Token))?;
        }
        Ok(last)
    };
    database.transaction("last_allocated", read).await
}

/// Events that are outliers belong to no room's timeline.
fn events(
    tx: &Transaction<'_>,
    from: &VectorPosition,
    next: &VectorPosition,
) -> rusqlite::Result<Vec<(Token, RoomEvent)>> {
    let sql = "SELECT stream_ordering, instance_name, event_id, room_id FROM events
               WHERE stream_ordering > ?1 AND stream_ordering <= ?2 AND NOT outlier
               ORDER BY stream_ordering";
    of_writers(tx, sql, from, next, |row| Ok(RoomEvent { event_id: row.get(2)?, room_id: row.get(3)? }))
}

fn receipts(
    tx: &Transaction<'_>,
    from: &VectorPosition,
    next: &VectorPosition,
) -> rusqlite::Result<Vec<(Token, ReceiptsRow)>> {
    let sql = "SELECT stream_id, instance_name, room_id, receipt_type, user_id, event_id, thread_id, data
               FROM receipts_linearized
               WHERE stream_id > ?1 AND stream_id <= ?2
               ORDER BY stream_id";
    of_writers(tx, sql, from, next, |row| {
        Ok(ReceiptsRow {
            room_id: row.get(2)?,
            kind: row.get(3)?,
            user_id: row.get(4)?,
            event_id: row.get(5)?,
            thread_id: row.get(6)?,
            data: row.get(7)?,
        })
    })
}

/// The rows of `sql`, which begin with their token and their writer, that are news.
fn of_writers<R>(
    tx: &Transaction<'_>,
    sql: &str,
    from: &VectorPosition,
    next: &VectorPosition,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<R>,
) -> rusqlite::Result<Vec<(Token, R)>> {
    let mut statement = tx.prepare_cached(sql)?;
    let mut found = statement.query((from.min().0, next.max().0))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let token = Token(row.get(0)?);
        let writer = InstanceName::from(row.get_ref(1)?.as_str()?);
        if next.is_news(from, &writer, token) {
            rows.push((token, read(row)?));
        }
    }
    Ok(rows)
}

fn account_data(
    tx: &Transaction<'_>,
    user_id: &str,
    from: Token,
    next: Token,
) -> rusqlite::Result<Vec<(Token, Datum)>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, NULL AS room_id, account_data_type, content FROM account_data
         WHERE user_id = ?1 AND stream_id > ?2 AND stream_id <= ?3
         UNION ALL
         SELECT stream_id, room_id, account_data_type, content FROM room_account_data
         WHERE user_id = ?1 AND stream_id > ?2 AND stream_id <= ?3
         ORDER BY stream_id",
    )?;
    let data = query.query_map((user_id, from.0, next.0), |row| {
        let content: Json = row.get(3)?;
        let datum = Datum { user_id: user_id.to_owned(), room_id: row.get(1)?, kind: row.get(2)?, content: content.0 };
        Ok((Token(row.get(0)?), datum))
    })?;
    data.collect()
}

fn presence(tx: &Transaction<'_>, from: Token, next: Token) -> rusqlite::Result<Vec<(Token, PresenceRow)>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts, status_msg,
                currently_active
         FROM presence_stream
         WHERE stream_id > ?1 AND stream_id <= ?2
         ORDER BY stream_id",
    )?;
    let states = query.query_map((from.0, next.0), |row| {
        let presence = PresenceRow {
            user_id: row.get(1)?,
            state: row.get(2)?,
            last_active_ms: row.get(3)?,
            last_federation_update_ms: row.get(4)?,
            last_user_sync_ms: row.get(5)?,
            status_msg: row.get(6)?,
            currently_active: row.get(7)?,
        };
        Ok((Token(row.get(0)?), presence))
    })?;
    states.collect()
}
