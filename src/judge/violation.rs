//! Violations: what was promised and not kept, with the evidence.
//!
//! A violation is data. Its fingerprint says which promise was broken and how, and nothing that changes from seed to
//! seed: it is what a shrinking run holds on to, and what a corpus is keyed by.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::client_violation::ClientViolation;
use super::topology::Feed;
use super::wire_violation::WireViolation;
use crate::caches::Cached;
use crate::protocol::{InstanceName, StreamName, Token};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "a variant's fields are the words of its own sentence")]
pub enum Violation {
    /// The position went past committed rows that were not applied.
    Missed {
        #[serde(flatten)]
        feed: Feed,
        tokens: Vec<Token>,
        from: Token,
        to: Token,
    },
    /// A token at or below the position was applied.
    Repeated {
        #[serde(flatten)]
        feed: Feed,
        token: Token,
        position: Token,
    },
    /// A token was applied with other rows than were committed under it, or in another order of types.
    WrongRows {
        #[serde(flatten)]
        feed: Feed,
        token: Token,
        committed: usize,
        applied: usize,
        differs: Differs,
    },
    /// A token was applied under which this writer had committed nothing.
    NotCommitted {
        #[serde(flatten)]
        feed: Feed,
        token: Token,
    },
    /// A row was applied that nobody had committed to the stream.
    MadeUp {
        #[serde(flatten)]
        feed: Feed,
        token: Token,
        row: Box<Value>,
    },
    /// A row was committed at or below a position that a follower had already reached, or its writer announced.
    CommittedBehind {
        #[serde(flatten)]
        feed: Feed,
        token: Token,
        position: Token,
    },
    /// The position went back, and nothing had said that the writer began anew.
    WentBack {
        #[serde(flatten)]
        feed: Feed,
        from: Token,
        to: Token,
    },
    /// A follower of an in-memory stream holds what no process of the writer ever said up to that position.
    WrongView {
        #[serde(flatten)]
        feed: Feed,
        position: Token,
        room: String,
        held: Box<[String]>,
        truth: Box<[String]>,
    },
    /// A client read something older than a change that the instance's position had passed.
    Stale {
        #[serde(flatten)]
        feed: Feed,
        what: Box<Cached>,
        version: Option<Token>,
        owed: Token,
        position: Token,
    },
    /// A client read something older than a write that the instance had told to be done.
    WriteUnseen {
        #[serde(flatten)]
        feed: Feed,
        what: Box<Cached>,
        version: Option<Token>,
        owed: Token,
    },
    /// A connection was attempted sooner than the back-off allows.
    TooSoon { instance: InstanceName, target: InstanceName, ended: u32, waited_ms: u64, least_ms: u64 },
    /// What only one request says was written twice.
    DoneTwice { place: String, words: String },
    /// An instance had more tasks of one name at once than its work can need.
    TooManyTasks { instance: InstanceName, task: &'static str, running: u64 },
    /// A connection was attempted while the one before was still open.
    Overlapping { instance: InstanceName, target: InstanceName },
    /// A process was stopped without having said that it serves nobody any more.
    NotCleared { instance: InstanceName, instance_id: String },
    /// A user who was syncing, and of whom the presence writer was or should have been told, went offline.
    OfflineWhileSyncing { user: String, instance: InstanceName, announced_ms: u64, silent_ms: u64 },
    /// A user who does not sync is not offline, long after the calm has begun.
    StillOnline { user: String },
    /// A user who syncs is offline, long after the calm has begun.
    StillOffline { user: String },
    /// A promise to clients was not kept.
    #[serde(untagged)]
    Client(ClientViolation),
    /// A promise about what instances say to each other was not kept.
    #[serde(untagged)]
    Wire(WireViolation),
}

/// How the rows applied under a token differ from the committed ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Differs {
    /// A committed row was not applied.
    Missing(Box<Value>),
    /// A row was applied that was not committed, or was applied before.
    Unexpected(Box<Value>),
    /// The rows are the same, but a type comes before one that it should follow.
    Order,
}

impl Violation {
    /// The name of the invariant that was violated.
    pub fn invariant(&self) -> &'static str {
        match self {
            Violation::TooSoon { .. } | Violation::Overlapping { .. } => "no_tight_reconnect",
            Violation::DoneTwice { .. } => "one_effect_per_transaction",
            Violation::TooManyTasks { .. } => "queues_bounded",
            Violation::NotCleared { .. }
            | Violation::OfflineWhileSyncing { .. }
            | Violation::StillOnline { .. }
            | Violation::StillOffline { .. } => "user_syncs_cleared",
            Violation::Stale { .. } | Violation::WriteUnseen { .. } => "caches_fresh_after_wait",
            Violation::Client(violation) => violation.invariant(),
            Violation::Wire(violation) => violation.invariant(),
            Violation::Repeated { .. } | Violation::WentBack { .. } => "positions_never_go_back",
            Violation::NotCommitted { .. } | Violation::MadeUp { .. } => "only_committed_applied",
            Violation::WrongRows { .. } => "tokens_whole",
            Violation::CommittedBehind { .. } => "no_position_over_uncommitted",
            Violation::Missed { .. } | Violation::WrongView { .. } => "no_missed_rows",
        }
    }

    /// How it was violated, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Violation::Missed { .. } => "missed",
            Violation::Repeated { .. } => "repeated",
            Violation::WrongRows { .. } => "wrong_rows",
            Violation::NotCommitted { .. } => "not_committed",
            Violation::MadeUp { .. } => "made_up",
            Violation::CommittedBehind { .. } => "committed_behind",
            Violation::WentBack { .. } => "went_back",
            Violation::WrongView { .. } => "wrong_view",
            Violation::Stale { .. } => "stale",
            Violation::WriteUnseen { .. } => "write_unseen",
            Violation::TooSoon { .. } => "too_soon",
            Violation::Overlapping { .. } => "overlapping",
            Violation::DoneTwice { .. } => "done_twice",
            Violation::TooManyTasks { .. } => "too_many_tasks",
            Violation::NotCleared { .. } => "not_cleared",
            Violation::OfflineWhileSyncing { .. } => "offline_while_syncing",
            Violation::StillOnline { .. } => "still_online",
            Violation::StillOffline { .. } => "still_offline",
            Violation::Client(violation) => violation.kind(),
            Violation::Wire(violation) => violation.kind(),
        }
    }

    /// Whose view of whose rows it is about, if it is about rows.
    pub fn feed(&self) -> Option<&Feed> {
        match self {
            Violation::Missed { feed, .. }
            | Violation::Repeated { feed, .. }
            | Violation::WrongRows { feed, .. }
            | Violation::NotCommitted { feed, .. }
            | Violation::MadeUp { feed, .. }
            | Violation::CommittedBehind { feed, .. }
            | Violation::WentBack { feed, .. }
            | Violation::WrongView { feed, .. }
            | Violation::Stale { feed, .. }
            | Violation::WriteUnseen { feed, .. } => Some(feed),
            Violation::TooSoon { .. }
            | Violation::Overlapping { .. }
            | Violation::DoneTwice { .. }
            | Violation::TooManyTasks { .. }
            | Violation::NotCleared { .. }
            | Violation::OfflineWhileSyncing { .. }
            | Violation::StillOnline { .. }
            | Violation::StillOffline { .. }
            | Violation::Client(_)
            | Violation::Wire(_) => None,
        }
    }

    /// The stream it is about, if it is about one.
    pub fn stream(&self) -> Option<&StreamName> {
        match self {
            Violation::Client(violation) => Some(violation.stream()),
            Violation::Wire(violation) => violation.stream(),
            _ => self.feed().map(|feed| &feed.stream),
        }
    }

    /// `invariant/stream/kind`, or `invariant/kind` where no stream is concerned.
    pub fn fingerprint(&self) -> String {
        match self.stream() {
            Some(stream) => format!("{}/{stream}/{}", self.invariant(), self.kind()),
            None => format!("{}/{}", self.invariant(), self.kind()),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Missed { feed, tokens, from, to } => {
                write!(f, "{feed}: went from {from} to {to} without the rows of {}", list(tokens))
            }
            Violation::Repeated { feed, token, position } => {
                write!(f, "{feed}: applied token {token} at position {position}, so again or too late")
            }
            Violation::WrongRows { feed, token, committed, applied, differs } => {
                write!(f, "{feed}: applied {applied} rows under token {token}, where {committed} were committed")?;
                match differs {
                    Differs::Missing(row) => write!(f, "; missing: {row}"),
                    Differs::Unexpected(row) => write!(f, "; not committed: {row}"),
                    Differs::Order => write!(f, "; they are the same, in the wrong order"),
                }
            }
            Violation::NotCommitted { feed, token } => {
                write!(f, "{feed}: applied token {token}, under which {} committed nothing", feed.writer)
            }
            Violation::MadeUp { feed, token, row } => {
                write!(f, "{feed}: applied under token {token} what nobody committed: {row}")
            }
            Violation::CommittedBehind { feed, token, position } => {
                write!(f, "{feed}: already at position {position} when token {token} was committed")
            }
            Violation::WentBack { feed, from, to } => {
                write!(f, "{feed}: position went back from {from} to {to} without a reset")
            }
            Violation::WrongView { feed, position, room, held, truth } => {
                let (held, truth) = (list(held), list(truth));
                write!(f, "{feed}: at position {position} holds [{held}] for {room}, where the writer has [{truth}]")
            }
            Violation::Stale { feed, what, version, owed, position } => {
                let version = of_version(*version);
                write!(f, "{feed}: at position {position} {what} was read {version}, without the change of {owed}")
            }
            Violation::WriteUnseen { feed, what, version, owed } => {
                let (instance, version) = (&feed.instance, of_version(*version));
                write!(f, "{feed}: {what} was read {version}, after {instance} had told that the write {owed} is done")
            }
            Violation::TooSoon { instance, target, ended, waited_ms, least_ms } => {
                write!(f, "{instance} tried {target} again after {waited_ms} ms, not after at least {least_ms} ms: ")?;
                write!(f, "{ended} attempts have ended since a connection was last set up")
            }
            Violation::DoneTwice { place, words } => write!(f, "{words} was written twice to {place}"),
            Violation::TooManyTasks { instance, task, running } => {
                write!(f, "{instance} had {running} tasks called {task} at once")
            }
            Violation::Overlapping { instance, target } => {
                write!(f, "{instance} tried {target} while its connection before was still open")
            }
            Violation::NotCleared { instance, instance_id } => {
                write!(f, "{instance} was stopped without having said CLEAR_USER_SYNC {instance_id}")
            }
            Violation::OfflineWhileSyncing { user, instance, announced_ms, silent_ms } => {
                write!(f, "{user} went offline while syncing on {instance}, which had said so {announced_ms} ms ago ")?;
                write!(f, "and last said it {silent_ms} ms ago")
            }
            Violation::StillOnline { user } => write!(f, "{user} does not sync and is not offline"),
            Violation::StillOffline { user } => write!(f, "{user} syncs and is offline"),
            Violation::Client(violation) => violation.fmt(f),
            Violation::Wire(violation) => violation.fmt(f),
        }
    }
}

fn of_version(version: Option<Token>) -> String {
    version.map_or_else(|| "empty".to_owned(), |version| format!("as of {version}"))
}

/// How many things a sentence names before it says how many more there are.
const NAMED_MAX: usize = 8;

/// `1, 2, 3`, and no more than a reader wants to see.
pub(super) fn list<T: fmt::Display>(things: &[T]) -> String {
    let named: Vec<String> = things.iter().take(NAMED_MAX).map(T::to_string).collect();
    let more = things.len() - named.len();
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(tokens: impl Iterator<Item = i64>) -> Violation {
        let feed = Feed::new(&"worker2".into(), &"events".into(), &"writer1".into());
        Violation::Missed { feed, tokens: tokens.map(Token).collect(), from: Token(16), to: Token(40) }
    }

    #[test]
    fn a_fingerprint_does_not_change_with_the_seed() {
        assert_eq!(missed(17..19).fingerprint(), "no_missed_rows/events/missed");
        assert_eq!(missed(17..19).fingerprint(), missed(30..31).fingerprint());
        let overlapping = Violation::Overlapping { instance: "a".into(), target: "b".into() };
        assert_eq!(overlapping.fingerprint(), "no_tight_reconnect/overlapping");
    }

    #[test]
    fn the_sentence_carries_the_evidence_and_stays_short() {
        let sentence = missed(17..39).to_string();
        assert_eq!(
            sentence,
            "events of writer1 on worker2: went from 16 to 40 without the rows of 17, 18, 19, 20, 21, 22, 23, 24 \
             and 14 more"
        );
    }

    #[test]
    fn the_kind_in_json_is_the_kind_of_the_fingerprint() {
        let json = serde_json::to_value(missed(17..18)).unwrap();
        assert_eq!(json["kind"], missed(17..18).kind());
        assert_eq!(json["instance"], "worker2");
        assert_eq!(json["tokens"], serde_json::json!([17]));
    }
}
