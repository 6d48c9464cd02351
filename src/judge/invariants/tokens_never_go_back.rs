//! Tokens never go back.
//!
//! A client's token is never behind the one that it came with, in any part but that of typing, whose numbers begin anew
//! with the memory they count in (`sync/typing.rs`): not on another instance, and not on one that has just started. And
//! what a token is past is over: no writer ever commits a row at or below a position that a client was given, or nobody
//! will tell the client of it. Ids that were taken and whose rows never came, or are gone again, made writers do so after
//! a restart (Synapse #6363, #17229).
//!
//! No false alarm: a client's token counts from the moment it has the answer, and a row from its commit.

use std::collections::BTreeMap;

use super::Invariant;
use super::clients_miss_nothing::{is_told, position};
use crate::judge::client_violation::ClientViolation;
use crate::judge::observation::{Moment, Observation};
use crate::judge::topology::Topology;
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, StreamName};
use crate::store::VectorPosition;
use crate::sync::SyncToken;

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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::judge::observation::{Answer, Client};
    use crate::protocol::Token;
    use crate::streams::{AccountDataRow, Promise, Row};
    use crate::sync::{TypingNews, TypingPosition};

    fn invariant() -> TokensNeverGoBack {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Promise::Log, ["a".into(), "b".into()])
            .with_stream("account_data", Promise::Keyed, ["a".into()])
            .with_stream("typing", Promise::Memory, ["a".into()]);
        TokensNeverGoBack::new(&topology)
    }

    fn token(min: i64, a: i64, account_data: i64) -> SyncToken {
        SyncToken {
            events: VectorPosition::new(Token(min), BTreeMap::from([("a".into(), Token(a))])),
            presence: Token(0),
            typing: TypingPosition::default(),
            receipts: VectorPosition::default(),
            account_data: Token(account_data),
            to_device: Token(0),
            others: Default::default(),
        }
    }

    fn synced(invariant: &mut TokensNeverGoBack, since: Option<SyncToken>, next: SyncToken) -> Result<(), Violation> {
        let client = Client { user_id: "@user".into(), device_id: "DEVICE".into() };
        let (events, to_device, rows, typing) = (vec![], vec![], vec![], TypingNews::default());
        let answer = Rc::new(Answer { next, events, to_device, rows, typing });
        invariant.observe(Moment(0), &Observation::Synced { client, instance: "worker".into(), since, answer })
    }

    fn committed(invariant: &mut TokensNeverGoBack, stream: &str, writer: &str, token: i64) -> Result<(), Violation> {
        let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
        let (stream, writer, token) = (stream.into(), writer.into(), Token(token));
        invariant.observe(Moment(0), &Observation::Committed { stream, writer, token, row })
    }

    fn fingerprint(seen: Result<(), Violation>) -> String {
        seen.map_or_else(|violation| violation.fingerprint(), |()| "nothing".into())
    }

    #[test]
    fn a_part_that_is_behind_is_named_whatever_the_others_are() {
        let judge = |next| fingerprint(synced(&mut invariant(), Some(token(3, 5, 7)), next));
        assert_eq!(judge(token(3, 5, 7)), "nothing");
        assert_eq!(judge(token(5, 5, 9)), "nothing");
        assert_eq!(judge(token(9, 9, 6)), "tokens_never_go_back/account_data/token_went_back");
        assert_eq!(judge(token(4, 4, 7)), "tokens_never_go_back/events/token_went_back", "for writer a");
        assert_eq!(judge(token(2, 8, 7)), "tokens_never_go_back/events/token_went_back", "for writer b");
        let typing = TypingPosition::from_number(9);
        let since = SyncToken { typing, ..token(3, 5, 7) };
        assert_eq!(synced(&mut invariant(), Some(since), token(3, 5, 7)), Ok(()), "typing may");
    }

    #[test]
    fn nothing_is_committed_at_or_below_what_any_client_was_given() {
        let mut invariant = invariant();
        assert_eq!(committed(&mut invariant, "events", "a", 2), Ok(()));
        synced(&mut invariant, None, token(3, 5, 7)).unwrap();
        synced(&mut invariant, None, token(4, 4, 1)).unwrap();
        let mut commit = |stream, writer, token| fingerprint(committed(&mut invariant, stream, writer, token));
        assert_eq!(commit("events", "b", 5), "nothing");
        assert_eq!(commit("events", "b", 4), "tokens_never_go_back/events/committed_behind_token");
        assert_eq!(commit("events", "a", 6), "nothing");
        assert_eq!(commit("events", "a", 5), "tokens_never_go_back/events/committed_behind_token");
        assert_eq!(commit("account_data", "a", 7), "tokens_never_go_back/account_data/committed_behind_token");
        assert_eq!(commit("caches", "a", 1), "nothing", "no token has a part of it");
    }
}
