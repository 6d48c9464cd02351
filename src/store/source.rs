//! The source of a stream in the database.

use rusqlite::Connection;

use super::query::UpdatesQuery;
use squall_protocol::Delivery;
use squall_protocol::rows::Updates;

/// The source of a stream: the same for every instance of every deployment.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The stream's name on the wire.
    pub name: &'static str,
    /// The guarantee to followers.
    pub delivery: Delivery,
    /// The sequence its tokens come from.
    pub sequence: &'static str,
    /// The tables that hold its rows, each with its token's column.
    pub tables: &'static [(&'static str, &'static str)],
    /// The SQL that creates the tables, portable between SQLite and PostgreSQL. Each table has an index by writer and token,
    /// because catch-up reads the rows of one writer in `(from, upto]`, ascending (Synapse #8496).
    pub schema: &'static str,
    /// Reads one writer's rows in a range of tokens.
    pub updates: fn(&Connection, UpdatesQuery<'_>) -> rusqlite::Result<Updates>,
    /// The name of the transaction that runs `updates`.
    pub transaction: &'static str,
}

#[cfg(test)]
mod tests {
    use crate::store::{SOURCES, memory};

    #[test]
    fn the_rows_of_a_writer_are_found_without_a_scan() {
        let connection = memory::empty();
        for (table, id) in SOURCES.iter().flat_map(|source| source.tables) {
            let query = format!(
                "EXPLAIN QUERY PLAN SELECT * FROM {table}
                 WHERE instance_name = 'a' AND {id} > 1 AND {id} <= 9 ORDER BY {id} LIMIT 50"
            );
            let plan: String = connection.query_row(&query, (), |row| row.get("detail")).unwrap();
            assert!(plan.contains("_by_writer"), "{plan}");
        }
    }
}
