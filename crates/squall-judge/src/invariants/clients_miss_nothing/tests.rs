//! Made-up answers, right ones and wrong ones.

use std::rc::Rc;

use super::*;
use crate::invariant::Alone;
use crate::invariants::made_up::{event, outlier};
use crate::violation;
use squall_protocol::VectorPosition;
use squall_protocol::rows::{AccountDataRow, PresenceRow, TypingRow};
use squall_protocol::{TypingNews, TypingPosition};

/// A deployment with two writers of events, where one client syncs.
struct Court {
    invariant: Alone<ClientsMissNothing>,
}

fn court() -> Court {
    let topology = Topology::new(["worker".into()])
        .with_stream("events", Delivery::Log, ["a".into(), "b".into()])
        .with_stream("account_data", Delivery::Keyed, ["a".into()])
        .with_stream("presence", Delivery::Keyed, ["a".into()])
        .with_stream("to_device", Delivery::Keyed, ["a".into()])
        .with_stream("typing", Delivery::Memory, ["a".into()]);
    Court { invariant: Alone::<ClientsMissNothing>::new(&topology) }
}

fn client() -> Client {
    Client { user_id: "@user".into(), device_id: "DEVICE".into() }
}

/// Everything at `plain`, and events at `min` with writer `a` at `a`.
fn token(min: i64, a: i64, plain: i64) -> SyncToken {
    SyncToken {
        events: VectorPosition::new(Token(min), BTreeMap::from([("a".into(), Token(a))])),
        presence: Token(plain),
        typing: TypingPosition::default(),
        receipts: VectorPosition::default(),
        account_data: Token(plain),
        to_device: Token(plain),
        others: Default::default(),
    }
}

fn nothing(next: SyncToken) -> Answer {
    Answer { next, events: vec![], to_device: vec![], rows: vec![], typing: TypingNews::default() }
}

fn items(ids: &[(i64, &str)]) -> Vec<(Token, String)> {
    ids.iter().map(|(token, id)| (Token(*token), (*id).to_owned())).collect()
}

fn datum(user: &str, kind: &str) -> Row {
    Row::AccountData(AccountDataRow { user_id: user.into(), room_id: None, kind: kind.into() })
}

fn presence(user: &str, state: &str) -> Row {
    Row::Presence(PresenceRow {
        user_id: user.into(),
        state: state.into(),
        last_active_ms: 0,
        last_federation_update_ms: 0,
        last_user_sync_ms: 0,
        status_msg: None,
        currently_active: false,
    })
}

impl Court {
    fn see(&mut self, observation: Observation) -> Result<(), Violation> {
        self.invariant.observe(SimTime(0), &observation)
    }

    fn committed(&mut self, writer: &str, token: i64, row: Row) {
        let stream = row.stream().into();
        self.see(Observation::Committed { stream, writer: writer.into(), token: Token(token), row }).unwrap();
    }

    fn message(&mut self, token: i64, id: &str) {
        self.see(Observation::MessageLeft { client: client(), token: Token(token), message_id: id.into() }).unwrap();
    }

    fn types(&mut self, room: &str, users: &[&str]) {
        let user_ids = users.iter().map(|user| user.to_string()).collect();
        let row = Row::Typing(TypingRow { room_id: room.into(), user_ids });
        let changed =
            Observation::Changed { stream: "typing".into(), writer: "a".into(), boot: 1, token: Token(1), row };
        self.see(changed).unwrap();
    }

    /// The kind of the violation of an answer.
    fn answer(&mut self, since: Option<SyncToken>, answer: Answer) -> String {
        let (client, instance, answer) = (client(), "worker".into(), Rc::new(answer));
        violation::kind(&self.see(Observation::Synced { client, instance, since, answer }))
    }

    fn pending(&self) -> Vec<String> {
        self.invariant.pending().iter().map(Pending::to_string).collect()
    }
}

/// A court where `a` committed events 2 and 5 and `b` 3.
fn court_with_events() -> Court {
    let mut court = court();
    for (writer, at) in [("a", 2), ("b", 3), ("a", 5)] {
        court.committed(writer, at, event(&format!("${at}")));
    }
    court
}

#[test]
fn events_between_the_tokens_are_due_once_and_in_order() {
    let judge = |next: SyncToken, events: &[(i64, &str)]| {
        court_with_events().answer(Some(token(1, 1, 1)), Answer { events: items(events), ..nothing(next) })
    };
    // `b` is at 2: its event is not due yet.
    assert_eq!(judge(token(2, 5, 1), &[(2, "$2"), (5, "$5")]), "none");
    assert_eq!(judge(token(3, 5, 1), &[(2, "$2"), (3, "$3"), (5, "$5")]), "none");
    assert_eq!(judge(token(3, 5, 1), &[(2, "$2"), (5, "$5")]), "not_told");
    assert_eq!(judge(token(2, 5, 1), &[(2, "$2"), (3, "$3"), (5, "$5")]), "told_wrongly");
    assert_eq!(judge(token(2, 5, 1), &[(5, "$5"), (2, "$2")]), "told_wrongly");
    assert_eq!(judge(token(2, 5, 1), &[(2, "$2"), (2, "$2"), (5, "$5")]), "told_wrongly");
    assert_eq!(judge(token(2, 5, 1), &[(2, "$2"), (5, "$another")]), "told_wrongly");
}

#[test]
fn an_event_must_not_come_twice() {
    let mut court = court_with_events();
    let again = Answer { events: items(&[(5, "$5")]), ..nothing(token(3, 5, 1)) };
    assert_eq!(court.answer(Some(token(2, 5, 1)), again), "told_wrongly");
}

#[test]
fn a_new_client_gets_no_history() {
    assert_eq!(court_with_events().answer(None, nothing(token(3, 5, 1))), "none");
    let history = Answer { events: items(&[(2, "$2")]), ..nothing(token(3, 5, 1)) };
    assert_eq!(court_with_events().answer(None, history), "told_wrongly");
}

#[test]
fn an_outlier_is_due_once_it_is_an_ordinary_event_and_not_before() {
    let judge = |upto: i64, events: &[(i64, &str)]| {
        let mut court = court();
        court.committed("a", 2, outlier("$2"));
        court.committed("a", 4, event("$2"));
        court.answer(Some(token(1, 1, 1)), Answer { events: items(events), ..nothing(token(1, upto, 1)) })
    };
    assert_eq!(judge(3, &[]), "none");
    assert_eq!(judge(3, &[(2, "$2")]), "told_wrongly");
    assert_eq!(judge(4, &[(4, "$2")]), "none");
    assert_eq!(judge(4, &[]), "not_told");
    assert_eq!(judge(4, &[(2, "$2")]), "told_wrongly");
}

#[test]
fn messages_come_once_and_in_order_and_do_not_get_lost() {
    let judge = |since: Option<i64>, messages: &[(i64, &str)]| {
        let mut court = court();
        [(2, "one"), (4, "two"), (9, "later")].iter().for_each(|(at, id)| court.message(*at, id));
        let since = since.map(|plain| token(1, 1, plain));
        court.answer(since, Answer { to_device: items(messages), ..nothing(token(1, 1, 5)) })
    };
    assert_eq!(judge(Some(1), &[(2, "one"), (4, "two")]), "none");
    assert_eq!(judge(Some(2), &[(4, "two")]), "none");
    assert_eq!(judge(None, &[(2, "one"), (4, "two")]), "none", "messages wait for a new client");
    assert_eq!(judge(None, &[]), "not_told");
    assert_eq!(judge(Some(1), &[(4, "two")]), "not_told");
    assert_eq!(judge(Some(1), &[(2, "one")]), "not_told");
    assert_eq!(judge(Some(2), &[(2, "one"), (4, "two")]), "told_wrongly");
    assert_eq!(judge(Some(1), &[(2, "one"), (4, "two"), (9, "later")]), "told_wrongly");
    assert_eq!(judge(Some(7), &[]), "none", "a token that went back is for another to judge");
}

#[test]
fn the_newest_row_of_each_key_is_due_and_an_overwritten_one_is_not() {
    let judge = |rows: &[(i64, Row)]| {
        let mut court = court();
        let written = [(2, datum("@user", "x")), (3, datum("@other", "x")), (4, datum("@user", "y"))];
        written.into_iter().for_each(|(at, row)| court.committed("a", at, row));
        court.committed("a", 9, datum("@user", "x"));
        let rows = rows.iter().map(|(at, row)| (Token(*at), row.clone())).collect();
        court.answer(Some(token(1, 1, 1)), Answer { rows, ..nothing(token(1, 1, 5)) })
    };
    assert_eq!(judge(&[(4, datum("@user", "y"))]), "none");
    assert_eq!(judge(&[(2, datum("@user", "x")), (4, datum("@user", "y"))]), "none", "it was read before");
    assert_eq!(judge(&[]), "not_told");
    assert_eq!(judge(&[(2, datum("@user", "x"))]), "not_told");
    assert_eq!(judge(&[(3, datum("@other", "x")), (4, datum("@user", "y"))]), "told_wrongly");
    assert_eq!(judge(&[(4, datum("@user", "y")), (9, datum("@user", "x"))]), "told_wrongly");
    assert_eq!(judge(&[(4, datum("@user", "z"))]), "told_wrongly");
}

#[test]
fn the_presence_of_all_users_is_due_as_it_was_committed() {
    let mut court = court();
    court.committed("a", 2, presence("@other", "online"));
    let answer = |state| Answer { rows: vec![(Token(2), presence("@other", state))], ..nothing(token(1, 1, 2)) };
    assert_eq!(court.answer(Some(token(1, 1, 1)), answer("online")), "none");
    assert_eq!(court.answer(Some(token(1, 1, 1)), answer("offline")), "told_wrongly");
    assert_eq!(court.answer(Some(token(1, 1, 1)), nothing(token(1, 1, 2))), "not_told");
}

#[test]
fn a_client_is_pending_until_it_has_every_last_token_and_the_typing_users() {
    let mut court = court_with_events();
    court.types("room", &["@x"]);
    assert_eq!(court.pending(), [""; 0], "no client syncs");
    let (name, instance) = (client(), InstanceName::from("worker"));
    court.see(Observation::SyncAsked { client: name, instance, since: None }).unwrap();
    assert_eq!(court.pending().len(), 6, "it has had no answer");
    assert_eq!(court.answer(None, nothing(token(3, 5, 1))), "none");
    let behind = "@user/DEVICE is at position 3 of events of b, not at 5";
    let typing = "@user/DEVICE is out of date on typing of a: room (position 0)";
    assert_eq!(court.pending(), [behind, typing]);
    let rooms = vec![TypingRow { room_id: "room".into(), user_ids: vec!["@x".into()] }];
    let answer = Answer { typing: TypingNews { is_all: false, rooms }, ..nothing(token(5, 5, 1)) };
    assert_eq!(court.answer(Some(token(3, 5, 1)), answer), "none");
    assert_eq!(court.pending(), [""; 0]);
    court.see(Observation::CalmOver).unwrap();

    // The writer of typing restarts, and the client has to learn that no user types.
    court.see(Observation::Started { instance: "a".into(), boot: 2 }).unwrap();
    assert_eq!(court.pending(), [typing]);
    let over = court.see(Observation::CalmOver).unwrap_err();
    assert_eq!(violation::fingerprint("clients_miss_nothing", &over, true), "clients_miss_nothing/typing/still_behind");
    let anew = Answer { typing: TypingNews { is_all: true, rooms: vec![] }, ..nothing(token(5, 5, 1)) };
    assert_eq!(court.answer(Some(token(5, 5, 1)), anew), "none");
    assert_eq!(court.pending(), [""; 0]);
}

#[test]
fn of_a_broken_stream_nothing_is_pending_and_of_the_others_all_is() {
    let mut court = court_with_events();
    assert_eq!(court.answer(None, nothing(token(3, 5, 1))), "none");
    court.committed("a", 9, presence("@user", "online"));
    assert_eq!(court.pending().len(), 2);
    court.see(Observation::StreamBroken { stream: "events".into() }).unwrap();
    assert_eq!(court.pending(), ["@user/DEVICE is at position 1 of presence of a, not at 9"]);
}
