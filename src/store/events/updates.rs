//! The catch-up query of `events`, over three tables that share one sequence of tokens.
//!
//! Each table is read with a limit of its own. Then all rows are cut back to the token up to which *every* table is
//! complete. A token is never split: if one token alone has more rows than the limit, all of them are read. Getting this
//! wrong lost rows silently or stopped every stream (Synapse #7337, #7358).

use std::collections::BTreeMap;

use rusqlite::{Connection, Row as SqlRow, ToSql, params};

use crate::store::query::{UpdatesQuery, with_token};
use squall_protocol::rows::events::{EventRow, EventsRow, StateAllRow, StateRow};
use squall_protocol::rows::{Row, Updates};
use squall_protocol::{InstanceName, Token};

/// The number of state rows of one room in one answer from which a single `state-all` row replaces them (Synapse #16510).
const STATE_ROWS_PER_ROOM_MAX: usize = 150;

/// Returns the rows of one writer in a range of tokens, about `rows_max` of them.
///
/// Half of the limit goes to events and half to state changes. Events that stop being outliers are few and are read
/// without a limit.
pub fn updates(database: &Connection, query: UpdatesQuery<'_>) -> rusqlite::Result<Updates> {
    let UpdatesQuery { writer, from, upto, rows_max } = query;
    if from >= upto {
        return Ok(Updates::empty(upto));
    }
    let tables = Tables { database, writer, from, limit: rows_max / 2 };

    let mut events = tables.events(upto)?;
    let mut limited = events.len() >= tables.limit;
    let mut complete = if limited { last_token(&events).unwrap_or(upto) } else { upto };

    let mut deltas = tables.state_deltas(complete)?;
    if deltas.len() >= tables.limit
        && let Some(cut) = last_token(&deltas)
    {
        // The last token may have more rows than were read: leave all of it to the next answer, ...
        limited = true;
        deltas.retain(|(token, _)| *token < cut);
        complete = cut.prev();
        if deltas.is_empty() {
            // ... unless it is the only one, and there would be no progress.
            complete = cut;
            deltas = tables.state_deltas_at(cut)?;
        }
    }
    events.retain(|(token, _)| *token <= complete);

    let mut rows = events;
    rows.extend(tables.ex_outliers(complete)?);
    rows.extend(collapse_large_changes(deltas));
    rows.sort();
    let rows = rows.into_iter().map(|(token, row)| (token, Row::Events(row))).collect();
    Ok(Updates { rows, upto: complete, limited })
}

type TokenRows = Vec<(Token, EventsRow)>;

fn last_token(rows: &TokenRows) -> Option<Token> {
    rows.last().map(|(token, _)| *token)
}

/// The tables, read for one writer's rows after one token.
struct Tables<'a> {
    database: &'a Connection,
    writer: &'a InstanceName,
    from: Token,
    limit: usize,
}

impl Tables<'_> {
    fn events(&self, upto: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT stream_ordering, event_id, room_id, type, state_key, redacts, relates_to, membership,
                          rejected, outlier
                   FROM events
                   WHERE instance_name = ? AND stream_ordering > ? AND stream_ordering <= ?
                   ORDER BY stream_ordering LIMIT ?";
        let range = params![self.writer.as_str(), self.from.0, upto.0, self.limit as i64];
        self.rows(sql, range, |row| event_row(row).map(EventsRow::Event))
    }

    fn ex_outliers(&self, upto: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT x.event_stream_ordering, e.event_id, e.room_id, e.type, e.state_key, e.redacts, e.relates_to,
                          e.membership, e.rejected, e.outlier
                   FROM ex_outlier_stream AS x JOIN events AS e USING (event_id)
                   WHERE x.instance_name = ? AND x.event_stream_ordering > ? AND x.event_stream_ordering <= ?
                   ORDER BY x.event_stream_ordering";
        let range = params![self.writer.as_str(), self.from.0, upto.0];
        self.rows(sql, range, |row| event_row(row).map(EventsRow::Event))
    }

    fn state_deltas(&self, upto: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT stream_id, room_id, type, state_key, event_id
                   FROM current_state_delta_stream
                   WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
                   ORDER BY stream_id LIMIT ?";
        let range = params![self.writer.as_str(), self.from.0, upto.0, self.limit as i64];
        self.rows(sql, range, |row| state_row(row).map(EventsRow::State))
    }

    fn state_deltas_at(&self, token: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT stream_id, room_id, type, state_key, event_id
                   FROM current_state_delta_stream WHERE instance_name = ? AND stream_id = ?";
        self.rows(sql, params![self.writer.as_str(), token.0], |row| state_row(row).map(EventsRow::State))
    }

    fn rows(
        &self,
        sql: &str,
        range: &[&dyn ToSql],
        read: impl Fn(&SqlRow<'_>) -> rusqlite::Result<EventsRow>,
    ) -> rusqlite::Result<TokenRows> {
        self.database.prepare_cached(sql)?.query_map(range, |row| with_token(row, &read))?.collect()
    }
}

/// Reads an event from the columns after the token.
pub(super) fn event_row(row: &SqlRow<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        event_id: row.get(1)?,
        room_id: row.get(2)?,
        kind: row.get(3)?,
        state_key: row.get(4)?,
        redacts: row.get(5)?,
        relates_to: row.get(6)?,
        membership: row.get(7)?,
        rejected: row.get(8)?,
        outlier: row.get(9)?,
    })
}

/// Reads a state change from the columns after the token.
fn state_row(row: &SqlRow<'_>) -> rusqlite::Result<StateRow> {
    Ok(StateRow { room_id: row.get(1)?, kind: row.get(2)?, state_key: row.get(3)?, event_id: row.get(4)? })
}

/// Replaces the state rows of a room that has [`STATE_ROWS_PER_ROOM_MAX`] or more by one `state-all` row at the last
/// of their tokens.
fn collapse_large_changes(deltas: TokenRows) -> TokenRows {
    let mut sizes: BTreeMap<String, (usize, Token)> = BTreeMap::new();
    for (token, row) in &deltas {
        if let EventsRow::State(state) = row {
            let (count, last) = sizes.entry(state.room_id.clone()).or_insert((0, *token));
            *count += 1;
            *last = (*last).max(*token);
        }
    }
    sizes.retain(|_, (count, _)| *count >= STATE_ROWS_PER_ROOM_MAX);
    let is_collapsed = |row: &EventsRow| matches!(row, EventsRow::State(state) if sizes.contains_key(&state.room_id));
    let mut rows: TokenRows = deltas.into_iter().filter(|(_, row)| !is_collapsed(row)).collect();
    rows.extend(sizes.into_iter().map(|(room_id, (_, last))| (last, EventsRow::StateAll(StateAllRow { room_id }))));
    rows
}

#[cfg(test)]
mod tests;
