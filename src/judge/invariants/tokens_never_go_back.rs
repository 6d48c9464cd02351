//! Tokens never go back.
//!
//! A client's token is never behind the one that it came with, in any part but that of typing, whose numbers begin anew
//! with the memory they count in (`sync/typing.rs`): not on another instance, and not on one that has just started. And
//! what a token is past is over: no writer ever commits a row at or below a position that a client was given, or nobody
//! will tell the client of it. Ids that were taken and whose rows never came, or are gone again, made writers do so after
//! a restart (Synapse #6363, #17229).
//!
//! No false alarm: a client's token counts from the moment it has the answer, and a row from its commit.

use super::Invariant;
use super::clients_miss_nothing::{is_told, position};
use crate::judge::client_violation::ClientViolation;
use crate::judge::observation::{Moment, Observation};
use crate::judge::topology::Topology;
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, StreamName};
use crate::store::VectorPosition;
use crate::sync::SyncToken;

use std::collections::BTreeMap;

/// Judges every token that is given, and every row against those that were.
pub struct TokensNeverGoBack {
    topology: Topology,
    /// The positions that clients were given, merged.
    given: BTreeMap<StreamName, VectorPosition>,
    judged: u64,
}

impl TokensNeverGoBack {
    /// Knows from `topology` which streams there are.
    pub fn new(topology: &Topology) -> Self {
        TokensNeverGoBack { topology: topology.clone(), given: BTreeMap::new(), judged: 0 }
    }

    /// The first stream and writer for which `next` is behind `since`.
    fn went_back<'a>(&'a self, since: &SyncToken, next: &SyncToken) -> Option<(&'a StreamName, &'a InstanceName)> {
        let mut writers = self.topology.writers().map(|(stream, _, writer)| (stream, writer));
        writers.find(|(stream, writer)| {
            let position = |token| position(token, stream.as_str()).position_of(writer);
            position(next) < position(since)
        })
    }
}

impl Invariant for TokensNeverGoBack {
    fn name(&self) -> &'static str {
        "tokens_never_go_back"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Synced { client, instance, since, answer } => {
                self.judged += 1;
                let streams = self.topology.writers().map(|(stream, ..)| stream);
                for stream in streams.filter(|stream| is_told(stream.as_str())) {
                    let given = self.given.entry(stream.clone()).or_default();
                    *given = given.merge(&position(&answer.next, stream.as_str()));
                }
                let Some(since) = since else { return Ok(()) };
                let Some((stream, writer)) = self.went_back(since, &answer.next) else { return Ok(()) };
                let position = |token| position(token, stream.as_str()).position_of(writer);
                Err(Violation::Client(ClientViolation::TokenWentBack {
                    client: client.clone(),
                    instance: instance.clone(),
                    stream: stream.clone(),
                    since: position(since),
                    next: position(&answer.next),
                }))
            }
            Observation::Committed { stream, writer, token, .. } => {
                let given = self.given.get(stream).map(|given| given.position_of(writer));
                let Some(given) = given.filter(|given| token <= given) else { return Ok(()) };
                let (stream, writer, token) = (stream.clone(), writer.clone(), *token);
                Err(Violation::Client(ClientViolation::CommittedBehindToken { stream, writer, token, given }))
            }
            _ => Ok(()),
        }
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}
