//! What a recording holds, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Origin, Unreadable};
use crate::judge::observation::Moment;
use crate::protocol::{Command, InstanceName, StreamName, Token};
use crate::streams;

/// Counts of everything that was said.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// How many payloads there were.
    pub payloads: u64,
    /// How many of them were commands.
    pub parsed: u64,
    /// How many there were of each command.
    pub commands: BTreeMap<&'static str, u64>,
    /// What each writer of each stream said.
    pub streams: BTreeMap<StreamName, BTreeMap<InstanceName, OriginTally>>,
}

/// What one writer said of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OriginTally {
    /// How many rows.
    pub rows: u64,
    /// How many positions.
    pub positions: u64,
    /// Where the last row or position left it; none if all it said was the beginning of a batch.
    pub last_token: Option<Token>,
    /// When it last said something, if that is known.
    #[serde(skip)]
    pub last_at: Option<Moment>,
}

impl Tally {
    pub(super) fn count(&mut self, at: Option<Moment>, said: Result<&Command, &Unreadable>) {
        self.payloads += 1;
        let Ok(command) = said else { return };
        self.parsed += 1;
        *self.commands.entry(command.name()).or_default() += 1;
        match command {
            Command::Rdata(rdata) => {
                let of_origin = self.origin(Origin::from(rdata));
                of_origin.rows += 1;
                of_origin.last_at = at;
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

    fn origin(&mut self, Origin { stream, writer }: Origin) -> &mut OriginTally {
        self.streams.entry(stream).or_default().entry(writer).or_default()
    }

    /// The streams that Squall does not have, whose rows nobody here looks into.
    pub fn unknown_streams(&self) -> Vec<&StreamName> {
        self.streams.keys().filter(|stream| !streams::NAMES.contains(&stream.as_str())).collect()
    }
}
