//! Queries that the tables of all streams share.

use rusqlite::{Connection, Row as SqlRow, Transaction, params};

use squall_protocol::rows::{Row, Updates};
use squall_protocol::{InstanceName, Token, VectorPosition};

/// A catch-up query: the rows of `writer` in `(from, upto]`, about `rows_max` of them.
#[derive(Debug, Clone, Copy)]
pub struct UpdatesQuery<'a> {
    /// The instance that wrote the rows.
    pub writer: &'a InstanceName,
    /// The token before the range.
    pub from: Token,
    /// The last token of the range.
    pub upto: Token,
    /// The number of rows to return. Some streams return more to keep a token whole.
    pub rows_max: usize,
}

impl UpdatesQuery<'_> {
    /// Runs `sql` on a table in which no two rows share a token.
    ///
    /// `sql` takes the writer, the two ends of the range and the limit. It selects the token, and then the columns that
    /// `read` understands.
    pub(super) fn run(
        &self,
        database: &Connection,
        sql: &str,
        read: impl Fn(&SqlRow<'_>) -> rusqlite::Result<Row>,
    ) -> rusqlite::Result<Updates> {
        let UpdatesQuery { writer, from, upto, rows_max } = *self;
        let mut statement = database.prepare_cached(sql)?;
        let range = params![writer.as_str(), from.0, upto.0, rows_max as i64];
        let rows = statement.query_map(range, |row| with_token(row, &read))?;
        Ok(Updates::one_row_per_token(rows.collect::<rusqlite::Result<_>>()?, upto, rows_max))
    }
}

/// Reads the token, which is the first column of `row`, and the rest by `read`.
pub(super) fn with_token<R>(
    row: &SqlRow<'_>,
    read: impl Fn(&SqlRow<'_>) -> rusqlite::Result<R>,
) -> rusqlite::Result<(Token, R)> {
    Ok((Token(row.get(0)?), read(row)?))
}

/// Reads the rows of all writers that are after `from` and not after `next`.
///
/// `sql` takes two tokens. It selects the token and the writer, and then the columns that `read` understands. It is run
/// once, between the lowest and the highest position of any writer; rows that are not in their own writer's range are
/// left out. So it is one query, however many writers the stream has.
pub(super) fn rows_of_writers<R>(
    tx: &Transaction<'_>,
    sql: &str,
    from: &VectorPosition,
    next: &VectorPosition,
    read: impl Fn(&SqlRow<'_>) -> rusqlite::Result<R>,
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
