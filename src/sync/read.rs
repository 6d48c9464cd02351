//! Reading the new rows for a client, in one transaction.

use rusqlite::Transaction;

use super::response::News;
use crate::store::{Database, DatabaseError, account_data, events, presence, receipts, to_device};
use squall_protocol::{SyncToken, Token, VectorPosition};

/// The ranges to read: for each stream the rows after the first and not after the second position. A stream without a
/// range is not read.
#[derive(Debug, Clone)]
pub(super) struct Range {
    events: Option<(VectorPosition, VectorPosition)>,
    receipts: Option<(VectorPosition, VectorPosition)>,
    account_data: Option<(Token, Token)>,
    to_device: Option<(Token, Token)>,
    presence: Option<(Token, Token)>,
    /// The token up to which the device has acknowledged its messages.
    acknowledged: Option<Token>,
}

impl Range {
    /// Returns the range of a first sync: only the waiting messages of the device.
    pub(super) fn first(now: &SyncToken) -> Self {
        Range {
            events: None,
            receipts: None,
            account_data: None,
            to_device: moved(&Token(0), &now.to_device),
            presence: None,
            acknowledged: None,
        }
    }

    /// Returns the range of everything in `(from, next]`.
    pub(super) fn between(from: &SyncToken, next: &SyncToken, acknowledged: Option<Token>) -> Self {
        Range {
            events: moved(&from.events, &next.events),
            receipts: moved(&from.receipts, &next.receipts),
            account_data: moved(&from.account_data, &next.account_data),
            to_device: moved(&from.to_device, &next.to_device),
            presence: moved(&from.presence, &next.presence),
            acknowledged,
        }
    }

    /// Returns true if there is nothing to read from the database.
    pub(super) fn is_empty(&self) -> bool {
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

/// Deletes the messages that a device has acknowledged, and then reads the rows in `range` for it.
pub(super) async fn read(
    database: &Database,
    user_id: &str,
    device_id: &str,
    range: Range,
) -> Result<News, DatabaseError> {
    let user_id = user_id.to_owned();
    let device_id = device_id.to_owned();
    let read = move |tx: &Transaction<'_>| {
        let mut news = News::default();
        if let Some(upto) = range.acknowledged {
            to_device::forget(tx, &user_id, &device_id, upto)?;
        }
        if let Some((from, next)) = &range.events {
            news.events = events::between(tx, from, next)?;
        }
        if let Some((from, next)) = &range.receipts {
            news.receipts = receipts::between(tx, from, next)?;
        }
        if let Some((from, next)) = range.account_data {
            news.account_data = account_data::between(tx, &user_id, from, next)?;
        }
        if let Some((from, next)) = range.to_device {
            news.to_device = to_device::inbox(tx, &user_id, &device_id, from, next)?;
        }
        if let Some((from, next)) = range.presence {
            news.presence = presence::between(tx, from, next)?;
        }
        Ok(news)
    };
    database.transaction("sync", read).await
}
