//! Counts of the payloads of a recording.

use std::collections::BTreeMap;

use serde::Serialize;

use super::origin::Origin;
use super::payload::Unreadable;
use crate::observation::SimTime;
use crate::violation::LISTED_MAX;
use squall_protocol::{Command, Dialect, InstanceName, Rdata, StreamName, Token};

/// Counts of payloads.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Number of payloads.
    pub payloads: u64,
    /// Number of payloads that were commands.
    pub parsed: u64,
    /// Number of payloads of each command.
    pub commands: BTreeMap<&'static str, u64>,
    /// Counts of each writer of each stream.
    pub streams: BTreeMap<StreamName, BTreeMap<InstanceName, OriginTally>>,
    /// The dialect of the last payload.
    #[serde(skip)]
    dialect: Dialect,
}

/// Counts of one writer of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OriginTally {
    /// Number of rows.
    pub rows: u64,
    /// Number of positions.
    pub positions: u64,
    /// The token of the last row or position. A batch without its end has none.
    pub last_token: Option<Token>,
    /// Number of tokens for which no row was ever sent: lost rows, failed transactions and replaced rows.
    pub unsent: u64,
    /// The last of those tokens.
    pub last_unsent: Vec<Token>,
    /// The time of the last row or position, if that is known.
    #[serde(skip)]
    pub last_at: Option<SimTime>,
    /// The last row that has a time in it.
    #[serde(skip)]
    pub last_dated: Option<DatedRow>,
}

/// A row that says when it was written. Rows of `caches` do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatedRow {
    /// The time in it, in milliseconds since the Unix epoch, by the writer's clock.
    pub written_ms: u64,
    /// The time at which it arrived.
    pub at: SimTime,
}

impl DatedRow {
    /// Returns the row's times, if it has one and the other is known.
    fn of(rdata: &Rdata, at: Option<SimTime>) -> Option<DatedRow> {
        if rdata.stream.as_str() != "caches" {
            return None;
        }
        // The name of the cache, its keys, and the time of the invalidation.
        let written_ms = rdata.row.get(2)?.as_u64()?;
        Some(DatedRow { written_ms, at: at? })
    }
}

impl Tally {
    /// Counts one payload.
    pub(super) fn count(&mut self, at: Option<SimTime>, dialect: Dialect, command: Result<&Command, &Unreadable>) {
        self.dialect = dialect;
        self.payloads += 1;
        let Ok(command) = command else { return };
        self.parsed += 1;
        *self.commands.entry(command.name()).or_default() += 1;
        match command {
            Command::Rdata(rdata) => {
                let of_origin = self.origin(Origin::from(rdata));
                of_origin.rows += 1;
                of_origin.last_at = at;
                of_origin.last_dated = DatedRow::of(rdata, at).or(of_origin.last_dated);
                of_origin.last_token = rdata.token.or(of_origin.last_token);
            }
            Command::Position(position) => {
                let of_origin = self.origin(Origin::from(position));
                of_origin.positions += 1;
                of_origin.last_at = at;
                of_origin.last_token = Some(position.new);
            }
            _ => {}
        }
    }

    /// Counts a token for which no row was sent.
    pub(super) fn unsent(&mut self, origin: Origin, token: Token) {
        let of_origin = self.origin(origin);
        of_origin.unsent += 1;
        of_origin.last_unsent.push(token);
        if of_origin.last_unsent.len() > LISTED_MAX {
            of_origin.last_unsent.remove(0);
        }
    }

    /// Counts a token no more: its row has come.
    pub(super) fn came_late(&mut self, origin: Origin, token: Token) {
        let of_origin = self.origin(origin);
        of_origin.unsent = of_origin.unsent.saturating_sub(1);
        of_origin.last_unsent.retain(|unsent| *unsent != token);
    }

    fn origin(&mut self, Origin { stream, writer }: Origin) -> &mut OriginTally {
        self.streams.entry(stream).or_default().entry(writer).or_default()
    }

    /// Returns the streams that no Synapse of the traffic's version has. Their rows are not parsed.
    pub fn unknown_streams(&self) -> Vec<&StreamName> {
        let known = self.dialect.streams();
        self.streams.keys().filter(|stream| !known.contains(&stream.as_str())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_unknown_if_the_version_does_not_have_it() {
        let unknown = |dialect| {
            let mut tally = Tally::default();
            for stream in ["events", "groups", "nonesuch", "sticky_events"] {
                let command = Command::parse(&format!("RDATA {stream} a 1 []")).unwrap();
                tally.count(None, dialect, Ok(&command));
            }
            tally.unknown_streams().into_iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(unknown(Dialect::V1_163), ["groups", "nonesuch"]);
        assert_eq!(unknown(Dialect::V1_19), ["nonesuch", "sticky_events"]);
    }

    #[test]
    fn the_last_row_with_a_time_is_kept() {
        let mut tally = Tally::default();
        let mut count = |at: u64, text: &str| {
            let command = Command::parse(text).unwrap();
            tally.count(Some(SimTime(at)), Dialect::V1_163, Ok(&command));
            let Command::Rdata(rdata) = &command else { panic!("{text}") };
            tally.streams[&rdata.stream][&rdata.writer].last_dated
        };
        let expected = Some(DatedRow { written_ms: 1_795_864_223_078, at: SimTime(7) });
        assert_eq!(count(7, r#"RDATA caches master 201 ["get_user_by_id",["@u:h"],1795864223078]"#), expected);
        for without in [r#"RDATA caches master 202 ["f",["@u:h"],null]"#, r#"RDATA caches master 203 ["f"]"#] {
            assert_eq!(count(8, without), expected, "{without}");
        }
        assert_eq!(count(9, r#"RDATA groups a 1 ["f",[],1795864223078]"#), None, "it may mean something else");
    }
}
