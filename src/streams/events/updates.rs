//! Where the rows of `events` come from: three tables that share one sequence of tokens.
//!
//! Each source is read with a limit of its own, and then everything is cut back to the point up to which *every*
//! source is complete. A token is never split: if one token alone has more rows than the limit, all of them are read.
//! Getting this wrong lost rows silently or stopped every stream (Synapse #7337, #7358).

use std::collections::BTreeMap;

use rusqlite::{Connection, Row as SqlRow, params};

use super::{EventRow, EventsRow, StateAllRow, StateRow};
use crate::protocol::{InstanceName, Token};
use crate::streams::{Row, Updates};

/// From this many state rows of one room in one answer on, a single `state-all` row stands for them (Synapse #16510).
pub const STATE_ROWS_PER_ROOM_MAX: usize = 150;

/// The rows that `writer` committed with tokens in `(from, upto]`, about `rows_target` of them.
///
/// Half of the target goes to events and half to state changes. Events that ceased to be outliers are few and are
/// read without a limit.
pub fn updates(
    database: &Connection,
    writer: &InstanceName,
    from: Token,
    upto: Token,
    rows_target: usize,
) -> rusqlite::Result<Updates> {
    if from >= upto {
        return Ok(Updates::none(upto));
    }
    let source = Source { database, writer, from, limit: rows_target / 2 };

    let mut events = source.events(upto)?;
    let mut limited = events.len() >= source.limit;
    let mut complete = if limited { last_token(&events).unwrap_or(upto) } else { upto };

    let mut deltas = source.state_deltas(complete)?;
    if deltas.len() >= source.limit
        && let Some(cut) = last_token(&deltas)
    {
        // The last token may have more rows than were read: leave all of it to the next answer, ...
        limited = true;
        deltas.retain(|(token, _)| *token < cut);
        complete = cut.prev();
        if deltas.is_empty() {
            // ... unless it is the only one, and there would be no progress.
            complete = cut;
            deltas = source.state_deltas_of(cut)?;
        }
    }
    events.retain(|(token, _)| *token <= complete);

    let mut rows = events;
    rows.extend(source.ex_outliers(complete)?);
    rows.extend(collapse_large_changes(deltas));
    rows.sort();
    let rows = rows.into_iter().map(|(token, row)| (token, Row::Events(row))).collect();
    Ok(Updates { rows, upto: complete, limited })
}

type TokenRows = Vec<(Token, EventsRow)>;

fn last_token(rows: &TokenRows) -> Option<Token> {
    rows.last().map(|(token, _)| *token)
}

/// One writer's rows after one token.
struct Source<'a> {
    database: &'a Connection,
    writer: &'a InstanceName,
    from: Token,
    limit: usize,
}

impl Source<'_> {
    fn events(&self, upto: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT stream_ordering, event_id, room_id, type, state_key, redacts, relates_to, membership,
                          rejected, outlier
                   FROM events
                   WHERE instance_name = ? AND stream_ordering > ? AND stream_ordering <= ?
                   ORDER BY stream_ordering LIMIT ?";
        let mut statement = self.database.prepare_cached(sql)?;
        let range = params![self.writer.as_str(), self.from.0, upto.0, self.limit as i64];
        statement.query_map(range, event_row)?.collect()
    }

    fn ex_outliers(&self, upto: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT x.event_stream_ordering, e.event_id, e.room_id, e.type, e.state_key, e.redacts, e.relates_to,
                          e.membership, e.rejected, e.outlier
                   FROM ex_outlier_stream AS x JOIN events AS e USING (event_id)
                   WHERE x.instance_name = ? AND x.event_stream_ordering > ? AND x.event_stream_ordering <= ?
                   ORDER BY x.event_stream_ordering";
        let mut statement = self.database.prepare_cached(sql)?;
        statement.query_map(params![self.writer.as_str(), self.from.0, upto.0], event_row)?.collect()
    }

    fn state_deltas(&self, upto: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT stream_id, room_id, type, state_key, event_id
                   FROM current_state_delta_stream
                   WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
                   ORDER BY stream_id LIMIT ?";
        let mut statement = self.database.prepare_cached(sql)?;
        let range = params![self.writer.as_str(), self.from.0, upto.0, self.limit as i64];
        statement.query_map(range, state_row)?.collect()
    }

    fn state_deltas_of(&self, token: Token) -> rusqlite::Result<TokenRows> {
        let sql = "SELECT stream_id, room_id, type, state_key, event_id
                   FROM current_state_delta_stream WHERE instance_name = ? AND stream_id = ?";
        let mut statement = self.database.prepare_cached(sql)?;
        statement.query_map(params![self.writer.as_str(), token.0], state_row)?.collect()
    }
}

fn event_row(row: &SqlRow<'_>) -> rusqlite::Result<(Token, EventsRow)> {
    let event = EventRow {
        event_id: row.get(1)?,
        room_id: row.get(2)?,
        kind: row.get(3)?,
        state_key: row.get(4)?,
        redacts: row.get(5)?,
        relates_to: row.get(6)?,
        membership: row.get(7)?,
        rejected: row.get(8)?,
        outlier: row.get(9)?,
    };
    Ok((Token(row.get(0)?), EventsRow::Event(event)))
}

fn state_row(row: &SqlRow<'_>) -> rusqlite::Result<(Token, EventsRow)> {
    let state = StateRow { room_id: row.get(1)?, kind: row.get(2)?, state_key: row.get(3)?, event_id: row.get(4)? };
    Ok((Token(row.get(0)?), EventsRow::State(state)))
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
