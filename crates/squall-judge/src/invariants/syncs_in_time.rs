//! Waiting syncs are answered in time.
//!
//! A client that syncs waits for news. When a position of its instance passes a row for the client, the instance answers
//! at once. An instance that does not wake the request, or wakes it before the position has moved, answers when the
//! client's time-out is over: nothing is lost, and every message comes half a minute late (Synapse #9796 woke waiters by
//! rows, and not by positions). So the answer comes within [`Topology::in_time_ms`].
//!
//! No false alarm: a request is judged only while the instance is sound, and once the instance has reached the client's
//! token in every stream: before that it waits for something else. A row that another one replaced before the answer is
//! not due. Of typing, the users in a room are due only while they differ from those that the client was last given. An
//! answer that is lost on its way counts as an answer.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use strum::VariantArray;
use thiserror::Error;

use crate::due::{Key, Position, key};
use crate::invariant::Invariant;
use crate::names::{Follower, Followers, Instance, Names, Source, Stream, Table};
use crate::observation::{Client, Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::rows::events::EventRow;
use squall_protocol::rows::{AccountDataRow, EventsRow, Row, TypingRow, to_device};
use squall_protocol::{InstanceName, StreamName, SyncToken, Token};

/// A client that waited in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A waiting client was not answered, although its instance had news for it.
    #[error(
        "{client} waits at {instance}, which reached token {token} of {stream} at {reached}: \
         no answer within {within_ms} ms"
    )]
    NotAnswered {
        client: Client,
        instance: InstanceName,
        stream: StreamName,
        token: Token,
        reached: SimTime,
        within_ms: u64,
    },
}

/// Checks the time between the arrival of a row for a client and the answer.
pub struct SyncsInTime {
    positions: Followers<Token>,
    /// The highest committed token.
    committed: Table<Source, Token>,
    within_ms: u64,
    waiting: BTreeMap<Client, Waiting>,
    /// The typing users that each client was last given, by room.
    typing: BTreeMap<Client, BTreeMap<String, Vec<String>>>,
    /// The newest token of each key.
    newest: BTreeMap<Key, Token>,
    /// The events that were outliers when they were committed: clients may never get them.
    outliers: BTreeSet<String>,
    /// The messages in inboxes.
    messages: BTreeSet<(Client, Token)>,
    /// The streams that cannot be read any more.
    broken: BTreeSet<Stream>,
    /// A time before which no answer is late.
    earliest: Option<SimTime>,
    judged: u64,
}

/// A request that waits for news.
struct Waiting {
    instance: Instance,
    since: SyncToken,
    news: BTreeMap<News, (SimTime, Token)>,
}

/// A row for a client: its writer's rows, and its key if a later row replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct News {
    source: Source,
    key: Option<Key>,
}

impl SyncsInTime {
    /// Returns true if `instance` has reached `since`. Its own rows count from their commit on, and its own position as
    /// far as any other: an idle writer follows the positions of the others.
    fn has_reached(&self, instance: Instance, since: &SyncToken, names: &Names) -> bool {
        let position = |source| self.positions.get(Follower { source, instance }).copied().unwrap_or_default();
        names.configured().all(|source| {
            let Some(since) = Position::in_stream(since, names.stream_name_of(source).as_str()) else { return true };
            let writer = names.writer_of(source);
            let reached = if writer == instance {
                let sources = names.sources_of(names.stream_of(source)).iter().copied();
                let of_others = sources.filter(|other| names.is_configured(*other)).map(position);
                of_others.chain(self.committed.get(source).copied()).max().unwrap_or_default()
            } else {
                position(source)
            };
            since.of_writer(names.name_of(writer)) <= reached
        })
    }

    fn committed(&mut self, source: Source, token: Token, row: &Row) {
        let highest = self.committed.or_default(source);
        *highest = token.max(*highest);
        if let Row::Events(EventsRow::Event(EventRow { event_id, outlier: true, .. })) = row {
            self.outliers.insert(event_id.clone());
        }
        let Some(key) = key(row).filter(|_| row.stream() != to_device::NAME) else { return };
        for waiting in self.waiting.values_mut() {
            waiting.news.retain(|news, _| news.key != Some(key));
        }
        let newest = self.newest.entry(key).or_default();
        *newest = token.max(*newest);
    }

    /// Adds a row that the instance has reached to the news of the clients that wait there.
    fn reached(&mut self, at: SimTime, token: Token, row: &Row, scene: &Scene) {
        let Follower { source, instance } = scene.follower();
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut of_instance = waiting.iter_mut().filter(|(_, waiting)| waiting.instance == instance).peekable();
        if of_instance.peek().is_none() {
            drop(of_instance);
            self.waiting = waiting;
            return;
        }
        let writer = scene.names.writer_of(source);
        let is_sound = scene.sound_since(at, instance, writer).is_some();
        let news = News { source, key: key(row) };
        for (client, waiting) in of_instance {
            let is_news = match row {
                Row::Typing(TypingRow { room_id, user_ids }) => {
                    let given = self.typing.get(client).and_then(|rooms| rooms.get(room_id));
                    given.map_or(&[][..], Vec::as_slice) != &user_ids[..]
                }
                Row::ToDevice(_) => self.messages.contains(&(client.clone(), token)),
                Row::Events(EventsRow::Event(EventRow { event_id, .. })) => !self.outliers.contains(event_id),
                Row::AccountData(AccountDataRow { user_id, .. }) if *user_id != client.user_id => false,
                Row::AccountData(_) | Row::Receipts(_) | Row::Presence(_) => {
                    news.key.is_some_and(|key| self.newest.get(&key) == Some(&token))
                }
                _ => false,
            };
            let since = Position::in_stream(&waiting.since, row.stream());
            let is_known = since.is_some_and(|since| token <= since.of_writer(scene.names.name_of(writer)));
            let is_due = is_sound && is_news && !is_known && !self.broken.contains(&scene.stream());
            if is_due && self.has_reached(instance, &waiting.since, &scene.names) {
                waiting.news.entry(news).or_insert((at, token));
                let until = SimTime(at.0 + self.within_ms);
                self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
            } else if !is_news {
                waiting.news.remove(&news);
            }
        }
        self.waiting = waiting;
    }

    /// Returns a request that should have been answered before `at`.
    fn overdue(&mut self, at: SimTime, scene: &Scene) -> Option<Violation> {
        if self.earliest.is_none_or(|earliest| at <= earliest) {
            return None;
        }
        let within_ms = self.within_ms;
        let mut overdue = None;
        self.earliest = None;
        for (client, Waiting { instance, news, .. }) in &mut self.waiting {
            news.retain(|news, (reached, _)| {
                let sound_since = scene.sound_since(at, *instance, scene.names.writer_of(news.source));
                sound_since.is_some_and(|since| since <= *reached)
            });
            let late = news.iter().find(|(_, (reached, _))| within_ms < at.ms_since(*reached));
            if let Some((News { source, .. }, (reached, token))) = late {
                let (client, instance) = (client.clone(), scene.names.name_of(*instance).clone());
                let (stream, token, reached) = (scene.names.stream_name_of(*source).clone(), *token, *reached);
                overdue = Some(Violation::NotAnswered { client, instance, stream, token, reached, within_ms });
                news.clear();
            }
            let first = news.values().map(|(reached, _)| SimTime(reached.0 + within_ms)).min();
            self.earliest = self.earliest.into_iter().chain(first).min();
        }
        overdue
    }
}

impl Invariant for SyncsInTime {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = Kind::VARIANTS;

    fn new(topology: &Topology) -> Self {
        SyncsInTime {
            positions: Followers::default(),
            committed: Table::default(),
            within_ms: topology.in_time_ms(),
            waiting: BTreeMap::new(),
            typing: BTreeMap::new(),
            newest: BTreeMap::new(),
            outliers: BTreeSet::new(),
            messages: BTreeSet::new(),
            broken: BTreeSet::new(),
            earliest: None,
            judged: 0,
        }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        let overdue = self.overdue(at, scene);
        match observation {
            Observation::Started { .. } | Observation::Stopped { .. } => {
                self.waiting.retain(|_, waiting| waiting.instance != scene.instance());
                self.positions.forget(scene.instance());
            }
            Observation::MessageLeft { client, token, .. } => drop(self.messages.insert((client.clone(), *token))),
            Observation::Committed { token, row, .. } => {
                self.committed(scene.source(), *token, row);
                self.reached(at, *token, row, scene);
            }
            Observation::Changed { token, row, .. } => self.reached(at, *token, row, scene),
            Observation::Following { position, .. } | Observation::Positioned { position, .. } => {
                self.positions.insert(scene.follower(), *position);
            }
            Observation::Applied { token, rows, .. } => {
                self.positions.insert(scene.follower(), *token);
                for row in rows {
                    self.reached(at, *token, row, scene);
                }
            }
            Observation::StreamBroken { .. } => drop(self.broken.insert(scene.stream())),
            Observation::SyncAsked { client, since, .. } => {
                self.waiting.remove(client);
                if let Some(since) = since.clone() {
                    let waiting = Waiting { instance: scene.instance(), since, news: BTreeMap::new() };
                    self.waiting.insert(client.clone(), waiting);
                }
            }
            Observation::SyncGivenUp { client } => drop(self.waiting.remove(client)),
            Observation::Synced { client, answer, .. } => {
                let news = self.waiting.remove(client).map(|waiting| waiting.news.len());
                self.judged += u64::from(news.is_some_and(|news| 0 < news));
                let typing = self.typing.entry(client.clone()).or_default();
                if answer.typing.is_all {
                    typing.clear();
                }
                let rooms = answer.typing.rooms.iter();
                typing.extend(rooms.map(|row| (row.room_id.clone(), row.user_ids.clone())));
            }
            _ => {}
        }
        overdue.map_or(Ok(()), Err)
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::made_up::{event, outlier, typing};
    use super::*;
    use crate::invariant::Alone;
    use crate::observation::Answer;
    use squall_protocol::rows::ReceiptsRow;
    use squall_protocol::{Delivery, TypingNews, TypingPosition, VectorPosition};

    const WITHIN_MS: u64 = 1_000;
    /// A time at which everything has settled.
    const SOUND: u64 = 20_000;

    fn token(events: i64) -> SyncToken {
        SyncToken {
            events: VectorPosition::new(Token(events), BTreeMap::new()),
            presence: Token(0),
            typing: TypingPosition::default(),
            receipts: VectorPosition::default(),
            account_data: Token(0),
            to_device: Token(0),
            others: Default::default(),
        }
    }

    fn client() -> Client {
        Client { user_id: "@a".into(), device_id: "D".into() }
    }

    fn asked(instance: &str, events: i64) -> Observation {
        Observation::SyncAsked { client: client(), instance: instance.into(), since: Some(token(events)) }
    }

    fn synced(events: i64, rooms: &[Row]) -> Observation {
        let rooms = rooms.iter().filter_map(|row| match row {
            Row::Typing(row) => Some(row.clone()),
            _ => None,
        });
        let typing = TypingNews { is_all: false, rooms: rooms.collect() };
        let (to_device, rows) = (Vec::new(), Vec::new());
        let answer = Rc::new(Answer { next: token(events), events: Vec::new(), to_device, rows, typing });
        Observation::Synced { client: client(), instance: "worker".into(), since: None, answer }
    }

    fn committed(token: i64, row: Row) -> Observation {
        let stream = row.stream().into();
        Observation::Committed { stream, writer: "writer".into(), token: Token(token), row }
    }

    fn applied(token: i64, row: Row) -> Observation {
        let (stream, writer) = (row.stream().into(), "writer".into());
        Observation::Applied { instance: "worker".into(), stream, writer, token: Token(token), rows: vec![row] }
    }

    fn positioned(token: i64) -> Observation {
        let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
        Observation::Positioned { instance, stream, writer, position: Token(token) }
    }

    fn receipt(event_id: &str) -> Row {
        let row: ReceiptsRow = ReceiptsRow {
            room_id: "!r".into(),
            kind: "m.read".into(),
            user_id: "@b".into(),
            event_id: event_id.into(),
            thread_id: None,
            data: squall_protocol::rows::Json(serde_json::json!({})),
        };
        Row::Receipts(row)
    }

    /// Tells the story of a client that was answered by the worker, waits there again, and then the rest of it.
    fn judge(rest: &[(u64, Observation)]) -> (Result<(), Violation>, u64) {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Delivery::Log, ["writer".into()])
            .with_stream("receipts", Delivery::Keyed, ["writer".into()])
            .with_in_time_ms(WITHIN_MS);
        let mut invariant = Alone::<SyncsInTime>::new(&topology);
        let begin = [
            (0, Observation::Started { instance: "writer".into(), boot: 1 }),
            (0, Observation::Started { instance: "worker".into(), boot: 1 }),
            (0, positioned(3)),
            (SOUND, synced(3, &[])),
            (SOUND, asked("worker", 3)),
        ];
        let mut result = Ok(());
        let end = [(SOUND + 60_000, Observation::Calm)];
        for (at, observation) in begin.iter().chain(rest).chain(&end) {
            result = result.and(invariant.observe(SimTime(*at), observation));
        }
        (result, invariant.exercised())
    }

    #[test]
    fn an_event_that_the_instance_has_is_due_within_the_bound() {
        let news = [(SOUND, committed(4, event("$4"))), (SOUND + 100, applied(4, event("$4")))];
        let answered_after = |ms| {
            let mut story = news.to_vec();
            story.push((SOUND + 100 + ms, synced(4, &[])));
            judge(&story)
        };
        assert_eq!(answered_after(WITHIN_MS), (Ok(()), 1));
        let text = answered_after(WITHIN_MS + 1).0.unwrap_err().to_string();
        let expected = "@a/D waits at worker, which reached token 4 of events at 20.100 s: no answer within 1000 ms";
        assert_eq!(text, expected);
    }

    #[test]
    fn rows_that_the_client_has_and_outliers_are_no_news() {
        assert_eq!(judge(&[(SOUND, committed(3, event("$3"))), (SOUND, applied(3, event("$3")))]), (Ok(()), 0));
        let ordinary = [
            (SOUND, committed(4, outlier("$4"))),
            (SOUND, applied(4, outlier("$4"))),
            (SOUND, committed(5, event("$4"))),
            (SOUND, applied(5, event("$4"))),
        ];
        assert_eq!(judge(&ordinary), (Ok(()), 0));
    }

    #[test]
    fn a_row_that_was_replaced_is_due_no_more() {
        let first = [(SOUND, committed(4, receipt("$1"))), (SOUND, applied(4, receipt("$1")))];
        assert!(judge(&first).0.is_err());
        let mut replaced = first.to_vec();
        replaced.push((SOUND + 500, committed(5, receipt("$2"))));
        assert_eq!(judge(&replaced), (Ok(()), 0));
        replaced.push((SOUND + 600, applied(5, receipt("$2"))));
        assert!(judge(&replaced).0.is_err());
    }

    #[test]
    fn messages_and_account_data_are_due_at_their_own_clients() {
        let row = |user: &str| {
            let user_id = user.to_owned();
            Row::AccountData(AccountDataRow { user_id, room_id: None, kind: "k".to_owned() })
        };
        let is_due = |user| judge(&[(SOUND, committed(4, row(user))), (SOUND, applied(4, row(user)))]).0.is_err();
        assert!(is_due("@a") && !is_due("@b"));
        let message = Row::ToDevice(squall_protocol::rows::ToDeviceRow { entity: "@a".to_owned() });
        let left = |device: &str| {
            let client = Client { user_id: "@a".into(), device_id: device.into() };
            Observation::MessageLeft { client, token: Token(4), message_id: "m".into() }
        };
        let is_due = |device| judge(&[(SOUND, left(device)), (SOUND, applied(4, message.clone()))]).0.is_err();
        assert!(is_due("D") && !is_due("E"));
    }

    #[test]
    fn typing_users_are_due_while_they_differ_from_those_that_the_client_has() {
        let begins = (SOUND, applied(1, typing("!r", &["@b"])));
        let ends = (SOUND + 500, applied(2, typing("!r", &[])));
        assert!(judge(std::slice::from_ref(&begins)).0.is_err());
        assert_eq!(judge(&[begins.clone(), ends.clone()]), (Ok(()), 0));
        let given = (SOUND + 100, synced(3, &[typing("!r", &["@b"])]));
        let story = [begins, given, (SOUND + 200, asked("worker", 3)), ends];
        let (late, judged) = judge(&story);
        assert_eq!(judged, 1);
        assert!(matches!(late, Err(Violation::NotAnswered { token: Token(2), .. })), "{late:?}");
    }

    #[test]
    fn only_a_client_whose_token_the_instance_has_reached_waits_for_news() {
        let news = [(SOUND + 1, committed(4, event("$4"))), (SOUND + 2, applied(4, event("$4")))];
        let with = |observation| {
            let mut story = vec![(SOUND, observation)];
            story.extend(news.iter().cloned());
            judge(&story)
        };
        assert!(with(Observation::Ponged { instance: "worker".into(), attempt: 1 }).0.is_err());
        assert_eq!(with(asked("worker", 5)), (Ok(()), 0), "the worker has not reached the client's token");
        assert_eq!(with(asked("other", 3)), (Ok(()), 0));
        assert_eq!(with(Observation::SyncGivenUp { client: client() }), (Ok(()), 0));
        assert_eq!(with(Observation::Stopped { instance: "worker".into(), boot: 1 }), (Ok(()), 0));
    }

    #[test]
    fn a_fault_at_the_instance_or_the_writer_excuses_the_delay() {
        for host in ["worker", "writer"] {
            let began = Observation::FaultBegan { hosts: vec![host.into()] };
            let story =
                [(SOUND, committed(4, event("$4"))), (SOUND + 1, applied(4, event("$4"))), (SOUND + 900, began)];
            assert_eq!(judge(&story), (Ok(()), 0));
        }
    }
}
