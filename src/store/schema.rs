//! The tables, in SQL that SQLite and Postgres both take.
//!
//! Three tables share the ids of the events stream, as in Synapse: `events`, `current_state_delta_stream` and
//! `ex_outlier_stream`. Each table of a stream is indexed by writer and id, because what is asked of it is always "the
//! rows of this writer in (from, upto], ascending" (Synapse #8496).

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::database::DatabaseError;

/// The version of the tables below. Raised whenever they change.
pub const VERSION: i64 = 3;

/// Prepared statements kept per connection: more than the stack has, so that none is prepared twice.
const STATEMENTS: usize = 128;

const TABLES: &str = "
CREATE TABLE events (
    stream_ordering INTEGER PRIMARY KEY,
    instance_name TEXT NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT,
    redacts TEXT,
    relates_to TEXT,
    membership TEXT,
    rejected BOOLEAN NOT NULL,
    outlier BOOLEAN NOT NULL
);
CREATE INDEX events_by_writer ON events (instance_name, stream_ordering);
CREATE TABLE current_state_delta_stream (
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_id TEXT
);
CREATE INDEX current_state_delta_stream_by_id ON current_state_delta_stream (stream_id);
CREATE INDEX current_state_delta_stream_by_writer ON current_state_delta_stream (instance_name, stream_id);
CREATE TABLE current_state_events (
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_id TEXT,
    stream_id INTEGER NOT NULL,
    UNIQUE (room_id, type, state_key)
);
CREATE TABLE ex_outlier_stream (
    event_stream_ordering INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    instance_name TEXT NOT NULL
);
CREATE INDEX ex_outlier_stream_by_event ON ex_outlier_stream (event_id);
CREATE INDEX ex_outlier_stream_by_writer ON ex_outlier_stream (instance_name, event_stream_ordering);
CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    account_data_type TEXT NOT NULL,
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    content TEXT NOT NULL,
    UNIQUE (user_id, account_data_type)
);
CREATE UNIQUE INDEX account_data_by_writer ON account_data (instance_name, stream_id);
CREATE INDEX account_data_by_id ON account_data (stream_id);
CREATE TABLE room_account_data (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    account_data_type TEXT NOT NULL,
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    content TEXT NOT NULL,
    UNIQUE (user_id, room_id, account_data_type)
);
CREATE UNIQUE INDEX room_account_data_by_writer ON room_account_data (instance_name, stream_id);
CREATE INDEX room_account_data_by_id ON room_account_data (stream_id);
CREATE TABLE receipts_linearized (
    stream_id INTEGER NOT NULL UNIQUE,
    instance_name TEXT NOT NULL,
    room_id TEXT NOT NULL,
    receipt_type TEXT NOT NULL,
    user_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    thread_id TEXT,
    data TEXT NOT NULL
);
CREATE UNIQUE INDEX receipts_linearized_by_key
    ON receipts_linearized (room_id, receipt_type, user_id, COALESCE(thread_id, ''));
CREATE INDEX receipts_linearized_by_writer ON receipts_linearized (instance_name, stream_id);
CREATE TABLE presence_stream (
    stream_id INTEGER NOT NULL UNIQUE,
    instance_name TEXT NOT NULL,
    user_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    last_active_ts INTEGER NOT NULL,
    last_federation_update_ts INTEGER NOT NULL,
    last_user_sync_ts INTEGER NOT NULL,
    status_msg TEXT,
    currently_active BOOLEAN NOT NULL
);
CREATE INDEX presence_stream_by_writer ON presence_stream (instance_name, stream_id);
CREATE TABLE device_inbox (
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    message_json TEXT NOT NULL
);
CREATE INDEX device_inbox_by_writer ON device_inbox (instance_name, stream_id);
CREATE INDEX device_inbox_by_id ON device_inbox (stream_id);
CREATE INDEX device_inbox_by_device ON device_inbox (user_id, device_id, stream_id);
CREATE TABLE cache_invalidation_stream_by_instance (
    stream_id INTEGER PRIMARY KEY,
    instance_name TEXT NOT NULL,
    cache_func TEXT NOT NULL,
    keys TEXT,
    invalidation_ts INTEGER
);
CREATE INDEX cache_invalidation_stream_by_writer ON cache_invalidation_stream_by_instance (instance_name, stream_id);
CREATE TABLE replication_transactions (
    endpoint TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    response TEXT NOT NULL,
    received_ts INTEGER NOT NULL,
    PRIMARY KEY (endpoint, transaction_id)
);
CREATE INDEX replication_transactions_by_age ON replication_transactions (received_ts);
CREATE TABLE instance_map (
    instance_id INTEGER PRIMARY KEY,
    instance_name TEXT NOT NULL UNIQUE
);
CREATE TABLE stream_positions (
    stream_name TEXT NOT NULL,
    instance_name TEXT NOT NULL,
    stream_id INTEGER NOT NULL,
    PRIMARY KEY (stream_name, instance_name)
);
CREATE TABLE sequences (
    name TEXT PRIMARY KEY,
    last_value INTEGER NOT NULL
);
CREATE TABLE sessions (
    instance_name TEXT PRIMARY KEY,
    boot INTEGER NOT NULL,
    started_ts INTEGER NOT NULL
);
CREATE TABLE schema_version (
    version INTEGER NOT NULL
);
";

/// Makes `connection` ready for use: creates the tables in an empty database, and refuses one of another version.
pub fn prepare(connection: &mut Connection) -> Result<(), DatabaseError> {
    let found = install(connection).map_err(|source| DatabaseError::Sqlite { transaction: "schema", source })?;
    if found != VERSION {
        return Err(DatabaseError::SchemaVersion { found, expected: VERSION });
    }
    Ok(())
}

/// Gives the version of the tables there are, after creating them if there were none.
fn install(connection: &mut Connection) -> rusqlite::Result<i64> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // One plan for all values. SQLite's planner would otherwise look at what is bound to a LIMIT, and so prepare the
    // statement anew each time something is bound to it: a sixth of a simulated run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Immediate, because several processes may open an empty file at once.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked in SQL: the library's own question is answered from what the connection knew of the schema before.
    let there = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'schema_version')";
    if !tx.query_row(there, (), |row| row.get(0))? {
        tx.execute_batch(TABLES)?;
        tx.execute("INSERT INTO schema_version (version) VALUES (?1)", [VERSION])?;
    }
    let found = tx.query_row("SELECT version FROM schema_version", (), |row| row.get(0))?;
    tx.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn the_rows_of_a_writer_are_found_without_a_scan() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        for (table, id) in crate::streams::SOURCES.iter().flat_map(|source| source.tables) {
            let query = format!(
                "EXPLAIN QUERY PLAN SELECT * FROM {table}
                 WHERE instance_name = 'a' AND {id} > 1 AND {id} <= 9 ORDER BY {id} LIMIT 50"
            );
            let plan: String = connection.query_row(&query, (), |row| row.get("detail")).unwrap();
            assert!(plan.contains("_by_writer"), "{plan}");
        }
    }

    #[test]
    fn a_query_with_a_limit_is_prepared_once_whatever_the_limit() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        let query = "SELECT 1 FROM events WHERE instance_name = 'a' ORDER BY stream_ordering LIMIT ?";
        let mut statement = connection.prepare(query).unwrap();
        for limit in [50, 50, 100] {
            assert!(!statement.exists([limit]).unwrap());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }

    #[test]
    fn a_database_of_another_version_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        prepare(&mut connection).unwrap();
        connection.execute("UPDATE schema_version SET version = 99", ()).unwrap();
        let refused = prepare(&mut connection);
        assert!(matches!(refused, Err(DatabaseError::SchemaVersion { found: 99, expected: VERSION })), "{refused:?}");
    }
}
