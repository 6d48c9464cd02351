//! The judge's own reading of rows, tokens and positions.
//!
//! The protocol answers the same questions, and the stack decides by those answers. The judge uses none of them: a defect
//! in one would change the answer and the expected answer alike, and go unseen. It takes only plain data from the
//! protocol: the fields of a row, the number of a token, the `min` and `ahead` of a position.

use std::collections::BTreeMap;

use super::hash::hash_of;
use squall_protocol::rows::{EventsRow, Row, account_data, events, presence, receipts, to_device};
use squall_protocol::{Cached, InstanceName, SyncToken, Token, VectorPosition};

/// Tokens in one run of a stream in memory. Each start of the writer begins a new run.
const TOKENS_PER_RUN: i64 = 1 << 32;

/// The identity of a row within its stream, as a hash: a later row with the same key replaces the earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64);

/// Returns the key of `row`; none if every row of its stream counts.
pub(super) fn key(row: &Row) -> Option<Key> {
    let stream = row.stream();
    let hash = match row {
        Row::AccountData(row) => hash_of(&(stream, &row.user_id, &row.room_id, &row.kind)),
        Row::Backfill(_)
        | Row::Caches(_)
        | Row::Events(_)
        | Row::Federation(_)
        | Row::PresenceFederation(_)
        | Row::ProfileUpdates(_)
        | Row::QuarantinedMedia(_)
        | Row::StickyEvents(_)
        | Row::UnPartialStatedEvent(_)
        | Row::UnPartialStatedRoom(_) => return None,
        Row::DeviceLists(row) => hash_of(&(stream, &row.user_id, row.is_signature, row.hosts_calculated)),
        Row::Presence(row) => hash_of(&(stream, &row.user_id)),
        Row::PushRules(row) => hash_of(&(stream, &row.user_id)),
        Row::Pushers(row) => hash_of(&(stream, &row.user_id, &row.app_id, &row.pushkey)),
        Row::Receipts(row) => hash_of(&(stream, &row.room_id, &row.kind, &row.user_id, &row.thread_id)),
        Row::ThreadSubscriptions(row) => hash_of(&(stream, &row.user_id, &row.room_id, &row.event_id)),
        Row::ToDevice(row) => hash_of(&(stream, &row.entity)),
        Row::Typing(row) => hash_of(&(stream, &row.room_id)),
    };
    Some(Key(hash))
}

/// Returns the room of a `state` row; none for any other row.
pub(super) fn state_room(row: &Row) -> Option<&str> {
    match row {
        Row::Events(EventsRow::State(state)) => Some(&state.room_id),
        _ => None,
    }
}

/// Returns the room of a `state-all` row; none for any other row.
pub(super) fn state_all_room(row: &Row) -> Option<&str> {
    match row {
        Row::Events(EventsRow::StateAll(state)) => Some(&state.room_id),
        _ => None,
    }
}

/// Returns the stream whose rows change what is read as `what`.
pub(super) fn stream_of(what: &Cached) -> &'static str {
    match what {
        Cached::State { .. } | Cached::Event { .. } => events::NAME,
        Cached::Receipts { .. } => receipts::NAME,
        Cached::AccountData { .. } | Cached::RoomAccountData { .. } => account_data::NAME,
    }
}

/// Returns the run of the writer in which a stream in memory got `token`.
pub(super) fn run_of(token: Token) -> i64 {
    token.0.div_euclid(TOKENS_PER_RUN)
}

/// Returns the position of a stream in memory at the beginning of a run, before its first row.
pub(super) fn beginning_of_run(run: i64) -> Token {
    Token(run * TOKENS_PER_RUN)
}

/// Returns true if client tokens have a position in `stream`, and it counts rows of the database.
pub(super) fn is_in_client_tokens(stream: &str) -> bool {
    [account_data::NAME, events::NAME, presence::NAME, receipts::NAME, to_device::NAME].contains(&stream)
}

/// A client's position in one stream: one token for every writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position<'a> {
    min: Token,
    ahead: Option<&'a BTreeMap<InstanceName, Token>>,
}

impl<'a> Position<'a> {
    /// Reads the part of `token` that belongs to `stream`; none for a stream that is not in client tokens.
    pub(crate) fn in_stream(token: &'a SyncToken, stream: &str) -> Option<Self> {
        match stream {
            account_data::NAME => Some(Position { min: token.account_data, ahead: None }),
            events::NAME => Some(Position::of_vector(&token.events)),
            presence::NAME => Some(Position { min: token.presence, ahead: None }),
            receipts::NAME => Some(Position::of_vector(&token.receipts)),
            to_device::NAME => Some(Position { min: token.to_device, ahead: None }),
            _ => None,
        }
    }

    /// Reads a position in a stream of several writers.
    pub(crate) fn of_vector(vector: &'a VectorPosition) -> Self {
        Position { min: vector.min(), ahead: Some(vector.ahead()) }
    }

    /// Returns the last token of `writer` that the client has been given.
    pub(crate) fn of_writer(&self, writer: &InstanceName) -> Token {
        let ahead = self.ahead.and_then(|ahead| ahead.get(writer)).copied();
        ahead.unwrap_or(self.min).max(self.min)
    }

    /// Returns the lowest token over all writers.
    pub(crate) fn lowest(&self) -> Token {
        self.min
    }

    /// Returns the highest token over all writers.
    pub(crate) fn highest(&self) -> Token {
        self.ahead.into_iter().flat_map(BTreeMap::values).copied().fold(self.min, Token::max)
    }
}

/// Returns true if `writer`'s row under `token` belongs in the answer that takes a client from `since` to `next`.
pub(super) fn is_due(since: &Position<'_>, next: &Position<'_>, writer: &InstanceName, token: Token) -> bool {
    since.of_writer(writer) < token && token <= next.of_writer(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_protocol::rows::{AccountDataRow, ToDeviceRow, TypingRow};

    fn vector(min: i64, ahead: &[(&str, i64)]) -> VectorPosition {
        let ahead = ahead.iter().map(|&(writer, token)| (writer.into(), Token(token)));
        VectorPosition::new(Token(min), ahead.collect())
    }

    fn datum(user_id: &str, room_id: Option<&str>, kind: &str) -> Row {
        let (user_id, kind) = (user_id.to_owned(), kind.to_owned());
        Row::AccountData(AccountDataRow { user_id, room_id: room_id.map(str::to_owned), kind })
    }

    #[test]
    fn a_row_is_due_after_the_old_token_of_its_writer_and_up_to_the_new_one() {
        let since = vector(3, &[("a", 5)]);
        let next = vector(4, &[("a", 9), ("b", 7)]);
        let is_due = |writer: &str, token| {
            is_due(&Position::of_vector(&since), &Position::of_vector(&next), &writer.into(), Token(token))
        };
        let due = |writer: &str| (0..12).filter(|token| is_due(writer, *token)).collect::<Vec<i64>>();
        assert_eq!(due("a"), [6, 7, 8, 9], "this writer is ahead in both tokens");
        assert_eq!(due("b"), [4, 5, 6, 7], "this writer is ahead in the new token");
        assert_eq!(due("c"), [4], "this writer is ahead in neither");
    }

    #[test]
    fn nothing_is_due_when_a_token_went_back() {
        let since = vector(7, &[]);
        let next = vector(5, &[("a", 6)]);
        let is_due =
            |token| is_due(&Position::of_vector(&since), &Position::of_vector(&next), &"a".into(), Token(token));
        assert!(!(0..12).any(is_due));
    }

    #[test]
    fn the_highest_and_lowest_tokens_bound_every_writer() {
        let vector = vector(4, &[("a", 9), ("b", 7)]);
        let position = Position::of_vector(&vector);
        assert_eq!((position.lowest(), position.highest()), (Token(4), Token(9)));
        let idle = VectorPosition::default();
        assert_eq!(Position::of_vector(&idle).highest(), Token(0));
    }

    #[test]
    fn rows_share_a_key_when_one_replaces_the_other() {
        assert_eq!(key(&datum("@a", None, "x")), key(&datum("@a", None, "x")));
        assert_ne!(key(&datum("@a", None, "x")), key(&datum("@a", None, "y")));
        assert_ne!(key(&datum("@a", None, "x")), key(&datum("@b", None, "x")));
        assert_ne!(key(&datum("@a", None, "x")), key(&datum("@a", Some("!room"), "x")));
        assert_ne!(key(&datum("@a b", None, "c")), key(&datum("@a", Some("b"), "c")), "a space separates nothing");
        let typing = |users: &[&str]| {
            let user_ids = users.iter().map(|user| user.to_string()).collect();
            Row::Typing(TypingRow { room_id: "!room".to_owned(), user_ids })
        };
        assert_eq!(key(&typing(&["@a"])), key(&typing(&[])));
    }

    #[test]
    fn receipts_of_one_user_differ_by_room_type_and_thread() {
        let receipt = |room: &str, kind: &str, thread: Option<&str>, event: &str| {
            let stream = receipts::NAME.into();
            let row = serde_json::json!([room, kind, "@a", event, thread, {}]);
            key(&Row::parse(&stream, row).expect("a receipt"))
        };
        assert_eq!(receipt("!r", "m.read", None, "$1"), receipt("!r", "m.read", None, "$2"));
        assert_ne!(receipt("!r", "m.read", None, "$1"), receipt("!r", "m.read", Some("main"), "$1"));
        assert_ne!(receipt("!r", "m.read", None, "$1"), receipt("!r", "m.read.private", None, "$1"));
        assert_ne!(receipt("!r", "m.read", None, "$1"), receipt("!s", "m.read", None, "$1"));
    }

    #[test]
    fn rows_that_name_only_what_changed_replace_each_other() {
        let key = |stream: &str, row| key(&Row::parse(&stream.into(), row).expect("a row"));
        let devices = |is_signature, hosts| key("device_lists", serde_json::json!(["@a", is_signature, hosts]));
        assert_eq!(devices(false, false), devices(false, false));
        assert_ne!(devices(false, false), devices(true, false));
        assert_ne!(devices(false, false), devices(false, true));
        let pusher = |pushkey, deleted| key("pushers", serde_json::json!(["@a", "app", pushkey, deleted]));
        assert_eq!(pusher("k", false), pusher("k", true));
        assert_ne!(pusher("k", false), pusher("l", false));
        let thread = |event| key("thread_subscriptions", serde_json::json!(["@a", "!r", event]));
        assert_ne!(thread("$1"), thread("$2"));
        assert_eq!(key("sticky_events", serde_json::json!(["!r", "$1"])), None);
    }

    #[test]
    fn every_event_counts_and_messages_to_one_user_share_a_key() {
        assert_eq!(key(&crate::invariants::made_up::event("$a")), None);
        let message = |entity: &str| key(&Row::ToDevice(ToDeviceRow { entity: entity.to_owned() }));
        assert_eq!(message("@a"), message("@a"));
        assert_ne!(message("@a"), message("@b"));
    }

    #[test]
    fn a_token_of_a_stream_in_memory_names_its_run() {
        for run in [0, 1, 7] {
            let beginning = beginning_of_run(run);
            assert_eq!((run_of(beginning), run_of(Token(beginning.0 + 9))), (run, run));
            assert!(beginning > Token(0) || run == 0);
        }
        assert_eq!(run_of(Token(beginning_of_run(2).0 - 1)), 1);
    }

    #[test]
    fn each_part_of_a_client_token_belongs_to_one_stream() {
        let token = SyncToken {
            events: vector(1, &[("a", 2)]),
            presence: Token(3),
            typing: squall_protocol::TypingPosition::default(),
            receipts: vector(4, &[]),
            account_data: Token(5),
            to_device: Token(6),
            others: Default::default(),
        };
        let position = |stream: &str| {
            let position = Position::in_stream(&token, stream);
            assert_eq!(position.is_some(), is_in_client_tokens(stream), "{stream}");
            position.map(|position| position.of_writer(&"a".into()).0)
        };
        let streams = ["events", "presence", "receipts", "account_data", "to_device", "typing", "caches"];
        assert_eq!(streams.map(position), [Some(2), Some(3), Some(4), Some(5), Some(6), None, None]);
    }
}
