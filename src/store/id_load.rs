//! Where the streams stand when an instance starts, read in one transaction.
//!
//! The rules of Synapse's start-up, and why each is safe:
//!
//! - A writer stands at the last id of the sequence (Synapse #17309): its predecessor is fenced out, so nothing of its
//!   own below that can still commit.
//! - Every other writer stands where it last said it stood, and nowhere further: its highest row proves nothing about
//!   the ids below.
//! - A writer records its position here, before it can allocate. So whoever finds a writer without a position knows that
//!   it has nothing outstanding, and may count it as being where the others are.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Transaction};

use super::id_generator::{IdGeneratorOptions, LoadError};
use super::id_state::StartingPoint;
use crate::protocol::{InstanceName, StreamName, Token};

/// The last value of a sequence nobody has drawn from. The first id is the one after it, so that a reader at 1, where
/// every stream starts, has not seen it yet (Synapse #13766).
const SEQUENCE_START: Token = Token(1);

/// Reads where the stream stands, and puts right what a change of configuration or a restored table left behind.
pub(super) fn starting_point(
    tx: &Transaction<'_>,
    options: &IdGeneratorOptions,
) -> rusqlite::Result<Result<StartingPoint, LoadError>> {
    let max_in_tables = max_in_tables(tx, options)?;
    let max_allocated = heal_sequence(tx, options.sequence, max_in_tables)?;
    let mut positions = known_positions(tx, options)?;
    if let Some((writer, &position)) = positions.iter().find(|(_, position)| **position > max_allocated) {
        let error = LoadError::PositionPastSequence {
            stream: options.stream.clone(),
            writer: writer.clone(),
            position,
            last_allocated: max_allocated,
        };
        return Ok(Err(error));
    }
    if options.is_writer() {
        positions.insert(options.instance.clone(), max_allocated);
        record_position(tx, &options.stream, &options.instance, max_allocated)?;
    }
    let persisted_upto = positions.values().copied().min().unwrap_or(max_in_tables);
    for writer in &options.writers {
        positions.entry(writer.clone()).or_insert(persisted_upto);
    }
    let mut start = StartingPoint { positions, persisted_upto, max_allocated, ..StartingPoint::default() };
    for (table, id) in options.tables {
        let mut rows = tx.prepare_cached(&format!("SELECT {id} FROM {table} WHERE {id} > ?1"))?;
        for id in rows.query_map([persisted_upto.0], |row| row.get(0))? {
            start.committed.insert(Token(id?));
        }
    }
    Ok(Ok(start))
}

/// Takes `n` ids from the sequence, and gives the last.
pub(super) fn take_ids(tx: &Transaction<'_>, sequence: &'static str, n: usize) -> rusqlite::Result<Token> {
    tx.prepare_cached("UPDATE sequences SET last_value = last_value + ?2 WHERE name = ?1 RETURNING last_value")?
        .query_row((sequence, n as i64), |row| row.get(0).map(Token))
}

/// Records that `writer` is settled up to `token`, unless it was already recorded to be further.
pub(super) fn record_position(
    tx: &Transaction<'_>,
    stream: &StreamName,
    writer: &InstanceName,
    token: Token,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES (?1, ?2, ?3)
         ON CONFLICT (stream_name, instance_name) DO UPDATE SET stream_id = excluded.stream_id
         WHERE stream_positions.stream_id < excluded.stream_id",
    )?
    .execute((stream.as_str(), writer.as_str(), token.0))?;
    Ok(())
}

fn max_in_tables(tx: &Transaction<'_>, options: &IdGeneratorOptions) -> rusqlite::Result<Token> {
    let mut max = SEQUENCE_START;
    for (table, id) in options.tables {
        let mut query = tx.prepare_cached(&format!("SELECT MAX({id}) FROM {table}"))?;
        let in_table: Option<i64> = query.query_row((), |row| row.get(0))?;
        max = in_table.map_or(max, |id| max.max(Token(id)));
    }
    Ok(max)
}

/// The last value of the sequence, after raising it to the highest id in the tables: a sequence that lags behind (a
/// table restored from elsewhere) would give ids a second time.
fn heal_sequence(tx: &Transaction<'_>, sequence: &'static str, at_least: Token) -> rusqlite::Result<Token> {
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

/// The recorded positions of the configured writers. Those of former writers are forgotten: they would hold the stream
/// back for ever.
fn known_positions(
    tx: &Transaction<'_>,
    options: &IdGeneratorOptions,
) -> rusqlite::Result<BTreeMap<InstanceName, Token>> {
    let stream = options.stream.as_str();
    let mut query =
        tx.prepare_cached("SELECT instance_name, stream_id FROM stream_positions WHERE stream_name = ?1")?;
    let recorded = query.query_map([stream], |row| {
        Ok((InstanceName::from(row.get::<_, String>("instance_name")?), Token(row.get("stream_id")?)))
    })?;
    let mut positions: BTreeMap<_, _> = recorded.collect::<rusqlite::Result<_>>()?;
    let mut forget = tx.prepare_cached("DELETE FROM stream_positions WHERE stream_name = ?1 AND instance_name = ?2")?;
    for former in positions.keys().filter(|writer| !options.writers.contains(writer)) {
        forget.execute((stream, former.as_str()))?;
    }
    positions.retain(|writer, _| options.writers.contains(writer));
    Ok(positions)
}
