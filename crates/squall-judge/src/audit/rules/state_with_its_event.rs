//! A change of state has the token of its event, or a later one.
//!
//! A `state` row says that an event is now an entry of its room's state. Synapse persists several events of a room in one
//! transaction, each under its own token, and gave all their changes of state the *first* of these tokens. A client whose
//! token lies in between has been told of the change before its event, and is not told of it with the event: in the
//! `state_after` of its next sync the change is missing (Synapse #20171). Synapse 1.163 does so in every new room.
//!
//! No false alarm: a row may name an event with a lower token, since a state reset, a resolution of conflicting states or
//! the end of a partial join brings back events that were persisted long ago. An outlier may have another `ev` row, when
//! it becomes an ordinary event, and the state may have named it before. So a row is found only if its event comes later
//! *in the same transaction*: the tokens from the row's to the event's follow each other without a gap, and are of one
//! writer and one room. An event that came before the row is not looked for.
//!
//! Class: loss, since a client never learns of the change by itself. In a new room it is a habit of every Synapse, and no
//! client has been told of the room yet: one whose `m.room.create` came at most [`NEW_ROOM_MS`] ago, or may have come before
//! the first payload and whose transaction has no other events than state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::bounds::{Bound, ID_BYTES_MAX};
use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::rows::{EventsRow, events};
use squall_protocol::{Command, Rdata, Token};

/// Age of a room that is new, in milliseconds.
pub const NEW_ROOM_MS: u64 = 10_000;

/// Number of new rooms that are remembered.
const NEW_ROOMS_MAX: usize = 1_000;

/// Number of rows that are remembered, over all writers. Beyond it, all are forgotten.
const ROWS_MAX: usize = 20_000;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A change of state has a lower token than its event. It is the first one of its token.
    #[error(
        "{origin}: the change of state to {event_id} has the token {token}, its event {event_token}. A client whose token \
         lies in between misses the change in `state_after` (Synapse #20171){}",
        if *is_new_room { ", but the room is new" } else { "" }
    )]
    TooEarly {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        event_id: String,
        event_token: Token,
        /// True if the room was created just before.
        is_new_room: bool,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        let Violation::TooEarly { is_new_room, .. } = self;
        if *is_new_room { Class::Habit } else { Class::Loss }
    }

    fn origin(&self) -> Option<&Origin> {
        let Violation::TooEarly { origin, .. } = self;
        Some(origin)
    }
}

/// Checks every change of state against its event.
#[derive(Debug, Default)]
pub(super) struct StateWithItsEvent {
    writers: BTreeMap<Origin, Transaction>,
    new_rooms: NewRooms,
    judged: u64,
    /// Number of rows that were forgotten because there were too many.
    forgotten: u64,
}

/// The rooms that were created just before, with the time of their creation.
#[derive(Debug, Default)]
struct NewRooms(VecDeque<(String, Option<SimTime>)>);

impl NewRooms {
    fn create(&mut self, at: Option<SimTime>, room_id: &str) {
        self.0.push_back((room_id.to_owned(), at));
        let is_old = |(_, then): &(String, Option<SimTime>)| is_older(at, *then);
        while self.0.len() > NEW_ROOMS_MAX || self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
    }

    /// Returns true if the room of this transaction is new, or may be, when the payload comes.
    fn has(&self, payload: &ParsedPayload<'_>, transaction: &Transaction) -> bool {
        let is_it = |(room_id, then): &(String, Option<SimTime>)| {
            *room_id == transaction.room_id && !is_older(payload.at, *then)
        };
        let may_have_come_before = !is_older(payload.at, payload.receiving_since) && transaction.has_only_state;
        self.0.iter().any(is_it) || may_have_come_before
    }
}

/// Returns true if `then` is too long ago for a new room.
fn is_older(now: Option<SimTime>, then: Option<SimTime>) -> bool {
    now.zip(then).is_some_and(|(now, then)| now.ms_since(then) > NEW_ROOM_MS)
}

/// The rows that a writer may have persisted in one transaction.
#[derive(Debug, Default)]
struct Transaction {
    /// The rows of a batch whose token has not come yet.
    batch: Vec<(u64, Content)>,
    room_id: String,
    /// True if every event of it is a state event.
    has_only_state: bool,
    /// The last token.
    last: Option<Token>,
    /// The events that came.
    events: BTreeSet<String>,
    /// The events that changes of state name and that have not come, with the line and token of the change.
    named: BTreeMap<String, (u64, Token)>,
}

/// The content of a row, as far as it matters here.
#[derive(Debug)]
enum Content {
    Event { room_id: String, event_id: String, is_state: bool, is_create: bool },
    State { event_id: String },
}

impl Content {
    /// Returns the content of a row that is judged.
    fn of(rdata: &Rdata) -> Option<Content> {
        let content = match EventsRow::parse(&rdata.row).ok()? {
            EventsRow::Event(row) => Content::Event {
                room_id: row.room_id,
                event_id: row.event_id,
                is_state: row.state_key.is_some(),
                is_create: row.kind == "m.room.create",
            },
            EventsRow::State(row) => Content::State { event_id: row.event_id? },
            EventsRow::StateAll(_) => return None,
        };
        let (Content::Event { event_id, .. } | Content::State { event_id }) = &content;
        let room_bytes = if let Content::Event { room_id, .. } = &content { room_id.len() } else { 0 };
        (event_id.len() <= ID_BYTES_MAX && room_bytes <= ID_BYTES_MAX).then_some(content)
    }
}

impl Transaction {
    fn size(&self) -> usize {
        self.batch.len() + self.events.len() + self.named.len()
    }

    /// Begins another transaction, unless `token` and the room show that this one may go on.
    fn go_on(&mut self, token: Token, room_id: &str) {
        let follows = self.last.is_some_and(|last| last == token || last.0.checked_add(1) == Some(token.0));
        if !follows || self.room_id != room_id {
            let batch = std::mem::take(&mut self.batch);
            *self = Transaction { batch, room_id: room_id.to_owned(), has_only_state: true, ..Transaction::default() };
        }
        self.last = Some(token);
    }

    /// Takes a row into account. If it is an event that came too late, returns the line and token of its change of state.
    fn row(&mut self, line: u64, token: Token, content: Content) -> Option<(u64, Token, String)> {
        match content {
            Content::Event { room_id, event_id, is_state, .. } => {
                self.go_on(token, &room_id);
                self.has_only_state &= is_state;
                self.events.insert(event_id.clone());
                let (state_line, state_token) = self.named.remove(&event_id)?;
                if state_token >= token {
                    return None;
                }
                // One example of each token is enough.
                self.named.retain(|_, (_, named_by)| *named_by != state_token);
                Some((state_line, state_token, event_id))
            }
            Content::State { event_id } => {
                if self.last == Some(token) && !self.events.contains(&event_id) {
                    self.named.entry(event_id).or_insert((line, token));
                }
                None
            }
        }
    }
}

impl Rule for StateWithItsEvent {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        let Ok(Command::Rdata(rdata)) = payload.command else { return };
        if rdata.stream.as_str() != events::NAME {
            return;
        }
        let origin = Origin::from(rdata);
        let content = Content::of(rdata);
        if let Some(Content::Event { room_id, is_create: true, .. }) = &content {
            self.new_rooms.create(payload.at, room_id);
        }
        self.judged += u64::from(matches!(content, Some(Content::State { .. })));
        let writer = self.writers.entry(origin.clone()).or_default();
        writer.batch.extend(content.map(|content| (payload.line, content)));
        if let Some(token) = rdata.token {
            for (line, content) in std::mem::take(&mut writer.batch) {
                if let Some((line, token_of_state, event_id)) = writer.row(line, token, content) {
                    let origin = origin.clone();
                    let is_new_room = self.new_rooms.has(payload, writer);
                    let event_token = token;
                    let token = token_of_state;
                    findings.add(line, Violation::TooEarly { origin, token, event_id, event_token, is_new_room });
                }
            }
        }
        let rows: usize = self.writers.values().map(Transaction::size).sum();
        if rows > ROWS_MAX {
            self.writers.clear();
            self.forgotten += rows as u64;
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.writers.clear();
        self.new_rooms = NewRooms::default();
    }

    fn judged(&self) -> u64 {
        self.judged
    }

    fn bounds(&self) -> Vec<Bound> {
        vec![Bound { things: "rows of open transactions", max: ROWS_MAX, unjudged: self.forgotten }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::{Traffic, found, found_at};

    fn event(token: &str, room: &str, event: &str) -> String {
        format!(r#"RDATA events a {token} ["ev",["{event}","{room}","t","",null,null,null,false,false]]"#)
    }

    fn state(token: &str, room: &str, event: &str) -> String {
        format!(r#"RDATA events a {token} ["state",["{room}","t","","{event}"]]"#)
    }

    fn lines(payloads: &[String]) -> Vec<u64> {
        let payloads: Vec<&str> = payloads.iter().map(|text| &**text).collect();
        found(StateWithItsEvent::default(), &payloads).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_change_of_state_before_its_event_is_found_once_for_each_token() {
        let payloads = [
            event("batch", "!r", "$m"),
            state("batch", "!r", "$1"),
            state("11", "!r", "$2"),
            event("12", "!r", "$1"),
            event("13", "!r", "$2"),
        ];
        assert_eq!(lines(&payloads), [2]);
        let payloads: Vec<_> = (0..).zip(payloads.iter().map(|text| &**text)).collect();
        let found = found_at(StateWithItsEvent::default(), &payloads);
        let expected = "events of a: the change of state to $1 has the token 11, its event 12.";
        assert!(found[0].violation.to_string().starts_with(expected), "{}", found[0].violation);
    }

    #[test]
    fn a_change_of_state_with_or_after_its_event_is_fine() {
        let with = [event("batch", "!r", "$1"), state("11", "!r", "$1"), event("12", "!r", "$1")];
        assert!(lines(&with).is_empty());
        let after = [event("11", "!r", "$1"), event("batch", "!r", "$2"), state("12", "!r", "$1")];
        assert!(lines(&after).is_empty());
        let long_ago = [event("batch", "!r", "$2"), state("12", "!r", "$old")];
        assert!(lines(&long_ago).is_empty());
    }

    #[test]
    fn an_event_of_another_transaction_is_not_the_one() {
        let beginning = [event("batch", "!r", "$m"), state("11", "!r", "$1")];
        let later = |rows: &[String]| lines(&[&beginning, rows].concat());
        assert_eq!(later(&[event("12", "!r", "$1")]), [2]);
        assert!(later(&[event("13", "!r", "$1")]).is_empty(), "a token of another writer lies in between");
        let another_room = [event("12", "!other", "$x"), event("13", "!r", "$1")];
        assert!(later(&another_room).is_empty());
        let another_writer = event("12", "!r", "$1").replace("events a", "events b");
        assert!(later(&[another_writer]).is_empty());
    }

    #[test]
    fn it_is_a_habit_in_a_new_room_and_a_loss_in_another_one() {
        let class_after = |first: &str, create_ms: u64, has_message: bool| {
            let create = event("4", "!r", "$0").replace(r#","t","#, r#","m.room.create","#);
            let mut rows = [event("batch", "!r", "$m"), state("11", "!r", "$1"), event("12", "!r", "$1")];
            if has_message {
                rows[0] = rows[0].replace(r#","t","","#, r#","t",null,"#);
            }
            let mut payloads = vec![(0, first), (create_ms, &*create)];
            payloads.extend(rows.iter().map(|row| (60_000, &**row)));
            let found = found_at(StateWithItsEvent::default(), &payloads);
            assert_eq!(found.len(), 1);
            found[0].violation.class()
        };
        let first = event("1", "!other", "$x");
        assert_eq!(class_after(&first, 59_000, true), Class::Habit);
        assert_eq!(class_after(&first, 10_000, false), Class::Loss);
        assert_eq!(class_after("PING 1", 55_000, true), Class::Habit);
        // The room may have been created before the first payload.
        let after = |ping_ms: u64, has_message: bool| {
            let message = if has_message {
                event("batch", "!r", "$m").replace(r#""","#, "null,")
            } else {
                event("batch", "!r", "$m")
            };
            let rows = [message, state("11", "!r", "$1"), event("12", "!r", "$1")];
            let mut payloads = vec![(60_000 - ping_ms, "PING 1")];
            payloads.extend(rows.iter().map(|row| (60_000, &**row)));
            found_at(StateWithItsEvent::default(), &payloads)[0].violation.class()
        };
        assert_eq!((after(0, false), after(0, true)), (Class::Habit, Class::Loss));
        assert_eq!(after(NEW_ROOM_MS, false), Class::Habit);
        assert_eq!(after(NEW_ROOM_MS + 1, false), Class::Loss, "payloads came for so long");
    }

    #[test]
    fn a_gap_ends_the_transaction() {
        let mut traffic = Traffic::default();
        let mut rule = StateWithItsEvent::default();
        let mut findings = Findings::default();
        traffic.check(&mut rule, 1, None, &event("batch", "!r", "$m"), &mut findings);
        traffic.check(&mut rule, 2, None, &state("11", "!r", "$1"), &mut findings);
        rule.missed(None);
        traffic.check(&mut rule, 3, None, &event("12", "!r", "$1"), &mut findings);
        assert_eq!(findings.0.len(), 0);
    }

    #[test]
    fn a_batch_without_an_end_is_forgotten() {
        let mut traffic = Traffic::default();
        let mut rule = StateWithItsEvent::default();
        let mut findings = Findings::default();
        for line in 0..=ROWS_MAX as u64 {
            traffic.check(&mut rule, line, None, &state("batch", "!r", "$1"), &mut findings);
        }
        assert!(rule.writers.is_empty());
    }
}
