//! Tokens never go back.
//!
//! The token of an answer is never behind the token that the client came with, on any instance, also on one that has just
//! restarted. And no writer commits a row at or below a position that a client was given: no later answer would have that
//! row. Ids that were allocated and whose rows never came, or were removed, made writers do so after a restart
//! (Synapse #6363, #17229).
//!
//! No false alarm: a client's token counts from the moment at which the client has the answer, and a row counts from its
//! commit. The part of typing is not judged: its numbers start again with the memory that they count in.

use crate::due::{Position, is_in_client_tokens};
use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Names, Source, Table};
use crate::observation::{Client, Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::{InstanceName, StreamName, SyncToken, Token};

/// A token that went back, or a row behind a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// The token of an answer is behind the one that the client came with.
    #[error("{client} came to {instance} at position {since} of {stream} and was sent back to {next}")]
    TokenWentBack { client: Client, instance: InstanceName, stream: StreamName, since: Token, next: Token },
    /// A row was committed at or below the position of its writer that a client had been given.
    #[error("{writer} committed token {token} of {stream}, where clients have been given {given}")]
    CommittedBehindToken { stream: StreamName, writer: InstanceName, token: Token, given: Token },
}

/// Checks every token that a client is given, and every row against the tokens given before.
pub struct TokensNeverGoBack {
    /// The highest position that any client was given of each writer.
    given: Table<Source, Option<Token>>,
    judged: u64,
}

impl TokensNeverGoBack {
    /// Returns the first writer's rows in which `next` is behind `since`, with its positions.
    fn went_back(&self, since: &SyncToken, next: &SyncToken, names: &Names) -> Option<(Source, Token, Token)> {
        self.given.iter().find_map(|(source, _)| {
            let since = position(since, source, names)?;
            let next = position(next, source, names)?;
            (next < since).then_some((source, since, next))
        })
    }
}

/// Returns the last token of a writer's rows that a client with this token has been given.
fn position(token: &SyncToken, source: Source, names: &Names) -> Option<Token> {
    let position = Position::in_stream(token, names.stream_name_of(source).as_str())?;
    Some(position.of_writer(names.name_of(names.writer_of(source))))
}

impl Invariant for TokensNeverGoBack {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Committed, Kind::Synced];

    fn new(topology: &Topology) -> Self {
        let names = Names::new(topology);
        let mut given = Table::default();
        for source in names.configured().filter(|source| is_in_client_tokens(names.stream_name_of(*source).as_str())) {
            given.insert(source, None);
        }
        TokensNeverGoBack { given, judged: 0 }
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Synced { client, instance, since, answer } => {
                self.judged += 1;
                for (source, given) in self.given.iter_mut() {
                    *given = position(&answer.next, source, &scene.names).max(*given);
                }
                let Some(since) = since else { return Ok(()) };
                let went_back = self.went_back(since, &answer.next, &scene.names);
                let Some((source, since, next)) = went_back else { return Ok(()) };
                Err(Violation::TokenWentBack {
                    client: client.clone(),
                    instance: instance.clone(),
                    stream: scene.names.stream_name_of(source).clone(),
                    since,
                    next,
                })
            }
            Observation::Committed { stream, writer, token, .. } => {
                let given = self.given.get(scene.source()).copied().flatten();
                let Some(given) = given.filter(|given| token <= given) else { return Ok(()) };
                let stream = stream.clone();
                let writer = writer.clone();
                Err(Violation::CommittedBehindToken { stream, writer, token: *token, given })
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
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::*;
    use crate::invariant::Alone;
    use crate::observation::Answer;
    use crate::violation;
    use squall_protocol::rows::{AccountDataRow, Row};
    use squall_protocol::{Delivery, TypingNews, TypingPosition, VectorPosition};

    fn invariant() -> Alone<TokensNeverGoBack> {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Delivery::Log, ["a".into(), "b".into()])
            .with_stream("account_data", Delivery::Keyed, ["a".into()])
            .with_stream("typing", Delivery::Memory, ["a".into()]);
        Alone::<TokensNeverGoBack>::new(&topology)
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

    fn synced(
        invariant: &mut Alone<TokensNeverGoBack>,
        since: Option<SyncToken>,
        next: SyncToken,
    ) -> Result<(), Violation> {
        let client = Client { user_id: "@user".into(), device_id: "DEVICE".into() };
        let (events, to_device, rows, typing) = (vec![], vec![], vec![], TypingNews::default());
        let answer = Rc::new(Answer { next, events, to_device, rows, typing });
        invariant.observe(SimTime(0), &Observation::Synced { client, instance: "worker".into(), since, answer })
    }

    fn committed(
        invariant: &mut Alone<TokensNeverGoBack>,
        stream: &str,
        writer: &str,
        token: i64,
    ) -> Result<(), Violation> {
        let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
        let (stream, writer, token) = (stream.into(), writer.into(), Token(token));
        invariant.observe(SimTime(0), &Observation::Committed { stream, writer, token, row })
    }

    fn fingerprint(seen: Result<(), Violation>) -> String {
        let Err(violation) = seen else { return "nothing".to_owned() };
        violation::fingerprint("tokens_never_go_back", &violation, true)
    }

    #[test]
    fn a_part_that_is_behind_is_named_although_others_are_ahead() {
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
        assert_eq!(commit("caches", "a", 1), "nothing", "client tokens have no part of it");
    }
}
