//! The positions of the streams at the start of an instance, read in one transaction.
//!
//! The rules are those of Synapse:
//!
//! - A writer starts at the last id of the sequence (Synapse #17309). Its predecessor is fenced off, so none of its own
//!   ids below that can still commit.
//! - Every other writer starts at its last recorded position, and no further: its highest row proves nothing about the
//!   ids below.
//! - A writer records its position here, before it can allocate. So a writer without a recorded position has nothing
//!   outstanding, and may be counted as being at the position of the others.
//!
//! One rule differs. Every instance of Synapse deletes the positions of writers that its configuration does not name. But
//! the configuration may be the old one, and the writer a new one that runs: the next instance to start would count it as
//! being at the position of the others, past an id that may be outstanding (Synapse #12374). Here an instance ignores such
//! a position, and deletes only its own: it has ended its predecessor, and nothing of it is outstanding.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Transaction;
use tokio::sync::Notify;

use super::database::DatabaseError;
use super::id_state::StartingPoint;
use super::sequences::heal_sequence;
use squall_protocol::{InstanceName, StreamName, Token};

/// The last value of a new sequence. The first id is the one after it, so that a reader at 1, where every stream starts,
/// has not passed it yet (Synapse #13766).
const SEQUENCE_START: Token = Token(1);

/// The stream of a generator, the instance that uses it, and its tables.
#[derive(Debug, Clone)]
pub struct IdGeneratorOptions {
    /// The stream, by its name in `stream_positions`.
    pub stream: StreamName,
    /// This instance.
    pub instance: InstanceName,
    /// The instances configured to write the stream.
    pub writers: Vec<InstanceName>,
    /// The sequence all of them take ids from.
    pub sequence: &'static str,
    /// The tables that hold the stream's rows, each with its id column.
    pub tables: &'static [(&'static str, &'static str)],
    /// False if this instance has another database than the writers, such as one that follows processes of Synapse.
    pub shares_database: bool,
    /// Notified whenever the position that this instance announces has moved. Streams of one streamer share it.
    pub poke: Arc<Notify>,
}

impl IdGeneratorOptions {
    /// Returns true if this instance writes the stream.
    pub fn is_writer(&self) -> bool {
        self.writers.contains(&self.instance)
    }
}

/// A failure to read the positions of a stream.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A writer has announced ids that were never allocated. The sequence was set back, and would return ids again that
    /// readers have already passed (Synapse #16095, `IncorrectDatabaseSetup`).
    #[error(
        "the database says that {writer} has announced {position} on {stream}, but the last id allocated is \
         {last_allocated}. If the sequence was set back, as by restoring a part of the database, set it to {position} or \
         higher. If something else had published this position, stop all instances and run `squall repair --config FILE`, \
         which lowers it"
    )]
    PositionPastSequence {
        /// The stream.
        stream: StreamName,
        /// The writer.
        writer: InstanceName,
        /// The recorded position.
        position: Token,
        /// The last value of the sequence.
        last_allocated: Token,
    },
}

/// Reads the positions of the stream. Repairs the sequence after a table was restored.
pub(super) fn starting_point(
    tx: &Transaction<'_>,
    options: &IdGeneratorOptions,
) -> rusqlite::Result<Result<StartingPoint, LoadError>> {
    let max_in_tables = max_in_tables(tx, options.tables)?;
    let max_allocated = heal_sequence(tx, options.sequence, max_in_tables)?;
    let mut positions = recorded_positions(tx, &options.stream)?;
    if !options.is_writer() && positions.remove(&options.instance).is_some() {
        delete_position(tx, &options.stream, &options.instance)?;
    }
    let unclaimed = positions.keys().filter(|writer| !options.writers.contains(writer)).cloned().collect();
    positions.retain(|writer, _| options.writers.contains(writer));
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
    let committed = Default::default();
    let mut start = StartingPoint { positions, persisted_upto, max_allocated, committed, unclaimed };
    for (table, id) in options.tables {
        let mut rows = tx.prepare_cached(&format!("SELECT {id} FROM {table} WHERE {id} > ?1"))?;
        for id in rows.query_map([persisted_upto.0], |row| row.get(0))? {
            start.committed.insert(Token(id?));
        }
    }
    Ok(Ok(start))
}

/// Records that `writer` is settled up to `token`, unless a higher position is already recorded.
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

/// Returns the highest id in `tables`, each with its id column.
pub(super) fn max_in_tables(tx: &Transaction<'_>, tables: &[(&str, &str)]) -> rusqlite::Result<Token> {
    let mut max = SEQUENCE_START;
    for (table, id) in tables {
        let mut query = tx.prepare_cached(&format!("SELECT MAX({id}) FROM {table}"))?;
        let in_table: Option<i64> = query.query_row((), |row| row.get(0))?;
        max = in_table.map_or(max, |id| max.max(Token(id)));
    }
    Ok(max)
}

/// Returns the recorded position of every writer, configured or not.
fn recorded_positions(tx: &Transaction<'_>, stream: &StreamName) -> rusqlite::Result<BTreeMap<InstanceName, Token>> {
    let mut query =
        tx.prepare_cached("SELECT instance_name, stream_id FROM stream_positions WHERE stream_name = ?1")?;
    let recorded = query.query_map([stream.as_str()], |row| {
        Ok((InstanceName::from(row.get::<_, String>("instance_name")?), Token(row.get("stream_id")?)))
    })?;
    recorded.collect()
}

fn delete_position(tx: &Transaction<'_>, stream: &StreamName, writer: &InstanceName) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM stream_positions WHERE stream_name = ?1 AND instance_name = ?2")?
        .execute((stream.as_str(), writer.as_str()))?;
    Ok(())
}
