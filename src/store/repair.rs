//! Repairs recorded positions that are past the last id that the database allocated.
//!
//! No writer can have got there. An instance records none since it checks what it hears, but once did, if something else
//! published such a position in the name of a writer. No instance starts with one.

use rusqlite::{OptionalExtension, Transaction};

use super::SOURCES;
use super::database::{Database, DatabaseError};
use super::id_load::max_in_tables;
use super::sequences::last_taken;
use squall_protocol::{InstanceName, StreamName, Token};

/// A recorded position that is past the last id that was allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastSequence {
    /// The stream.
    pub stream: StreamName,
    /// The writer.
    pub writer: InstanceName,
    /// The recorded position.
    pub position: Token,
    /// The last id that was allocated.
    pub last_allocated: Token,
}

/// Lowers each recorded position that is past the last id of its stream to that id, and returns them as they were. If
/// `is_trial`, only returns them.
///
/// # Errors
/// The database failed.
pub async fn lower_positions(database: &Database, is_trial: bool) -> Result<Vec<PastSequence>, DatabaseError> {
    database.transaction("lower_positions", move |tx| lower_all(tx, is_trial)).await
}

fn lower_all(tx: &Transaction<'_>, is_trial: bool) -> rusqlite::Result<Vec<PastSequence>> {
    let mut all = Vec::new();
    for source in SOURCES {
        let allocated = last_taken(tx, source.sequence).optional()?.unwrap_or_default();
        let last = allocated.max(max_in_tables(tx, source.tables)?);
        let mut past = tx.prepare_cached(
            "SELECT instance_name, stream_id FROM stream_positions WHERE stream_name = ?1 AND stream_id > ?2
             ORDER BY instance_name",
        )?;
        let rows = past.query_map((source.name, last.0), |row| {
            Ok(PastSequence {
                stream: source.name.into(),
                writer: InstanceName::from(row.get::<_, String>("instance_name")?),
                position: Token(row.get("stream_id")?),
                last_allocated: last,
            })
        })?;
        all.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        if !is_trial {
            tx.prepare_cached("UPDATE stream_positions SET stream_id = ?2 WHERE stream_name = ?1 AND stream_id > ?2")?
                .execute((source.name, last.0))?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryBackend;

    #[tokio::test]
    async fn positions_past_the_last_id_are_lowered_to_it_and_no_others() {
        let database = MemoryBackend::open().database();
        let poison = |tx: &Transaction<'_>| {
            tx.execute_batch(
                "INSERT INTO sequences (name, last_value) VALUES ('events_stream_seq', 7), ('receipts_sequence', 9);
                 INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES
                     ('events', 'writer1', 1000000), ('events', 'master', 7), ('receipts', 'master', 9);",
            )
        };
        database.transaction("poison", poison).await.unwrap();
        let expected = [PastSequence {
            stream: "events".into(),
            writer: "writer1".into(),
            position: Token(1_000_000),
            last_allocated: Token(7),
        }];
        for is_trial in [true, false] {
            assert_eq!(lower_positions(&database, is_trial).await.unwrap(), expected);
        }
        assert_eq!(lower_positions(&database, false).await.unwrap(), []);
    }
}
