//! The sequences that stream ids come from: a row with a counter for each.

use rusqlite::{OptionalExtension, Transaction};

use super::database::{Database, DatabaseError};
use squall_protocol::Token;

/// Takes `n` ids from `sequence` and returns the last of them.
pub(super) fn take_ids(tx: &Transaction<'_>, sequence: &'static str, n: usize) -> rusqlite::Result<Token> {
    // Not with RETURNING, for whose answer SQLite creates a temporary table each time.
    tx.prepare_cached("UPDATE sequences SET last_value = last_value + ?2 WHERE name = ?1")?
        .execute((sequence, n as i64))?;
    last_taken(tx, sequence)
}

/// Returns the last id taken from `sequence`.
pub(super) fn last_taken(tx: &Transaction<'_>, sequence: &'static str) -> rusqlite::Result<Token> {
    tx.prepare_cached("SELECT last_value FROM sequences WHERE name = ?1")?
        .query_row([sequence], |row| row.get(0).map(Token))
}

/// Raises `sequence` to `at_least`, the highest id in the tables, and returns its last value. A sequence that lags behind
/// (a table was restored from elsewhere) would return ids a second time.
pub(super) fn heal_sequence(tx: &Transaction<'_>, sequence: &'static str, at_least: Token) -> rusqlite::Result<Token> {
    let mut query = tx.prepare_cached("SELECT last_value FROM sequences WHERE name = ?1")?;
    let last: Option<i64> = query.query_row([sequence], |row| row.get(0)).optional()?;
    if let Some(last) = last.map(Token).filter(|last| *last >= at_least) {
        return Ok(last);
    }
    tx.prepare_cached(
        "INSERT INTO sequences (name, last_value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET last_value = excluded.last_value",
    )?
    .execute((sequence, at_least.0))?;
    Ok(at_least)
}

/// Returns the last id taken from each of `sequences`.
///
/// # Errors
/// The database failed, or a sequence does not exist.
pub async fn last_allocated<const N: usize>(
    database: &Database,
    sequences: [&'static str; N],
) -> Result<[Token; N], DatabaseError> {
    let read = move |tx: &Transaction<'_>| {
        let mut last = [Token(0); N];
        for (last, sequence) in last.iter_mut().zip(sequences) {
            *last = last_taken(tx, sequence)?;
        }
        Ok(last)
    };
    database.transaction("last_allocated", read).await
}
