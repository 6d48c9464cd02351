//! The schema, in SQL that both SQLite and PostgreSQL accept.
//!
//! The tables of a stream are in its [`Source`](super::Source). The other tables are here.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::SOURCES;
use super::database::DatabaseError;

/// The version of all tables. Raised whenever one changes; the table of a new stream is added without it.
const VERSION: i64 = 5;

/// Size of the statement cache of a connection: larger than the number of statements, so that none is prepared twice.
const STATEMENTS: usize = 128;

const TABLES: &str = "
CREATE TABLE current_state_events (
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_id TEXT,
    stream_id INTEGER NOT NULL,
    UNIQUE (room_id, type, state_key)
);
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
    boot INTEGER NOT NULL
);
CREATE TABLE schema_version (
    version INTEGER NOT NULL
);
";

/// Creates the tables in an empty database.
///
/// # Errors
/// SQLite failed, or the tables are of another version.
pub fn prepare(connection: &mut Connection) -> Result<(), DatabaseError> {
    let found = install(connection).map_err(|source| DatabaseError::Sqlite { transaction: "schema", source })?;
    if found != VERSION {
        return Err(DatabaseError::SchemaVersion { found, expected: VERSION });
    }
    Ok(())
}

/// Creates the tables if there are none, and returns their version.
fn install(connection: &mut Connection) -> rusqlite::Result<i64> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // One query plan for all values. SQLite's planner would otherwise depend on the value bound to a LIMIT, and prepare the
    // statement again for each value: a sixth of the time of a simulated run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Immediate, because several processes may open an empty file at once.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !exists(&tx, "schema_version")? {
        tx.execute_batch(TABLES)?;
        tx.execute("INSERT INTO schema_version (version) VALUES (?1)", [VERSION])?;
    }
    for source in SOURCES {
        // Missing too if the stream was added after the database was created.
        if !exists(&tx, source.tables[0].0)? {
            tx.execute_batch(source.schema)?;
        }
    }
    let found = tx.query_row("SELECT version FROM schema_version", (), |row| row.get(0))?;
    tx.commit()?;
    Ok(found)
}

/// Returns true if the database has `table`. In SQL, because the library's own check uses the schema that the connection has
/// cached.
fn exists(tx: &Transaction<'_>, table: &str) -> rusqlite::Result<bool> {
    tx.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?1)", [table], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_query_is_prepared_once_for_all_limits() {
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
    fn the_table_of_a_new_stream_is_added_to_a_database_that_is_in_use() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        connection.execute_batch("INSERT INTO sequences VALUES ('kept', 7); DROP TABLE receipts_linearized").unwrap();
        prepare(&mut connection).unwrap();
        let count = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM receipts_linearized"), 0);
        assert_eq!(count("SELECT last_value FROM sequences WHERE name = 'kept'"), 7);
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
