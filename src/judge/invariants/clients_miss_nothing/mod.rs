//! Clients miss nothing.
//!
//! Everything that was committed after the token a client came with, and not after the one it was given, is in the
//! answer, once, and nothing else is. As the next request brings the token of the last answer, no event and no message
//! is missed or told twice over a client's life, whichever instances served it and however often answers were lost.
//! Users missed events when tokens stood at the slowest writer and then at the fastest (Synapse #8170, #8439), when a
//! token was ahead of what was read (#14158), and when messages were forgotten before they had arrived.
//!
//! Once the storm is over, every client comes to the last committed token of every stream, of idle writers too (#8499),
//! and to what is true of typing.
//!
//! No false alarm: a client that was not answered is not judged; see [`events`], [`inboxes`] and [`keyed`] for what they
//! let be. Typing is judged in the calm alone: what a client is told of it may be of a run that has ended.

mod events;
mod inboxes;
mod keyed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::events::Events;
use self::inboxes::Inboxes;
use self::keyed::Keyed;
use super::Invariant;
use crate::judge::client_violation::ClientViolation;
use crate::judge::observation::{Answer, Client, Moment, Observation};
use crate::judge::pending::{Lack, Pending};
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::store::VectorPosition;
use crate::streams::{self, Promise, Row, account_data, presence, receipts, to_device, typing};
use crate::sync::SyncToken;

/// Judges every answer against what was committed.
pub struct ClientsMissNothing {
    topology: Topology,
    events: Events,
    inboxes: Inboxes,
    keyed: BTreeMap<&'static str, Keyed>,
    /// The highest token committed, by stream.
    highest: BTreeMap<StreamName, Token>,
    /// Who types, by room.
    typing: BTreeMap<String, Vec<String>>,
    clients: BTreeMap<Client, View>,
    /// Streams of which nothing more need come.
    broken: BTreeSet<StreamName>,
    judged: u64,
}

/// What a client knows.
#[derive(Default)]
struct View {
    token: Option<SyncToken>,
    typing: BTreeMap<String, Vec<String>>,
}

/// How an answer differs from what it had to be.
struct Difference {
    is_lacking: bool,
    token: Token,
    what: String,
}

impl Difference {
    fn not_told(token: Token, what: impl Into<String>) -> Self {
        Difference { is_lacking: true, token, what: what.into() }
    }

    fn told_wrongly(token: Token, what: impl Into<String>) -> Self {
        Difference { is_lacking: false, token, what: what.into() }
    }
}

/// The streams of which a client is told the newest row of each key.
const KEYED: [&str; 3] = [receipts::NAME, account_data::NAME, presence::NAME];

impl ClientsMissNothing {
    /// Knows from `topology` who writes what.
    pub fn new(topology: &Topology) -> Self {
        ClientsMissNothing {
            topology: topology.clone(),
            events: Events::default(),
            inboxes: Inboxes::default(),
            keyed: KEYED.map(|stream| (stream, Keyed::default())).into(),
            highest: BTreeMap::new(),
            typing: BTreeMap::new(),
            clients: BTreeMap::new(),
            broken: BTreeSet::new(),
            judged: 0,
        }
    }

    fn committed(&mut self, stream: &StreamName, writer: &InstanceName, token: Token, row: &Row) {
        let highest = self.highest.entry(stream.clone()).or_default();
        *highest = token.max(*highest);
        self.events.committed(writer, token, row);
        if let Some(rows) = self.keyed.get_mut(stream.as_str()) {
            rows.committed(writer, token, row);
        }
    }

    fn judge(
        &self,
        client: &Client,
        since: Option<&SyncToken>,
        answer: &Answer,
    ) -> Result<(), (&'static str, Difference)> {
        let next = &answer.next;
        // Whoever begins has no history, but is told of the messages that wait.
        let from = since.unwrap_or(next);
        let in_stream = |stream| move |difference| (stream, difference);
        let events = self.events.judge(&from.events, &next.events, &answer.events);
        events.map_err(in_stream(streams::events::NAME))?;
        let acknowledged = since.map_or(Token(0), |since| since.to_device);
        let messages = self.inboxes.judge(client, acknowledged, next.to_device, &answer.to_device);
        messages.map_err(in_stream(to_device::NAME))?;
        for (stream, rows) in &self.keyed {
            let told = answer.rows.iter().filter(|(_, row)| row.stream() == *stream);
            let judged = rows.judge(&client.user_id, &position(from, stream), &position(next, stream), told);
            judged.map_err(in_stream(stream))?;
        }
        Ok(())
    }

    /// What `client` lacks of `writer`'s rows.
    fn lack(&self, view: &View, stream: &StreamName, writer: &InstanceName) -> Option<Lack> {
        let Some(token) = &view.token else { return Some(Lack::Following) };
        let position = position(token, stream.as_str()).position_of(writer);
        let expected = self.highest.get(stream).copied().filter(|highest| position < *highest)?;
        Some(Lack::Position { position, expected })
    }

    fn lacking_rooms(&self, view: &View) -> Option<Lack> {
        let of = |rooms: &BTreeMap<String, Vec<String>>, room: &String| rooms.get(room).cloned().unwrap_or_default();
        let mut rooms: Vec<String> = self.typing.keys().chain(view.typing.keys()).cloned().collect();
        rooms.retain(|room| of(&self.typing, room) != of(&view.typing, room));
        rooms.sort();
        rooms.dedup();
        (!rooms.is_empty()).then_some(Lack::Rooms { rooms, position: Token(0) })
    }
}

/// Where `token` is in a stream in the database; at the beginning of those that clients are not told of.
pub(super) fn position(token: &SyncToken, stream: &str) -> VectorPosition {
    let plain = |token| VectorPosition::new(token, BTreeMap::new());
    match stream {
        streams::events::NAME => token.events.clone(),
        receipts::NAME => token.receipts.clone(),
        account_data::NAME => plain(token.account_data),
        presence::NAME => plain(token.presence),
        to_device::NAME => plain(token.to_device),
        _ => plain(Token(0)),
    }
}

/// Whether clients are told of a stream in the database.
pub(super) fn is_told(stream: &str) -> bool {
    stream == streams::events::NAME || stream == to_device::NAME || KEYED.contains(&stream)
}

impl Invariant for ClientsMissNothing {
    fn name(&self) -> &'static str {
        "clients_miss_nothing"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. }
                if self.topology.written_by(instance).any(|stream| stream.as_str() == typing::NAME) =>
            {
                self.typing.clear();
            }
            Observation::Committed { stream, writer, token, row } if is_told(stream.as_str()) => {
                self.committed(stream, writer, *token, row);
            }
            Observation::Changed { row: Row::Typing(row), .. } => {
                self.typing.insert(row.room_id.clone(), row.user_ids.clone());
            }
            Observation::MessageLeft { client, token, message_id } => self.inboxes.left(client, *token, message_id),
            Observation::StreamBroken { stream } => {
                self.broken.insert(stream.clone());
            }
            Observation::SyncAsked { client, .. } => {
                self.clients.entry(client.clone()).or_default();
            }
            Observation::Synced { client, instance, since, answer } => {
                self.judged += 1;
                let judged = self.judge(client, since.as_ref(), answer);
                let view = self.clients.entry(client.clone()).or_default();
                view.token = Some(answer.next.clone());
                if answer.typing.is_all {
                    view.typing.clear();
                }
                let rooms = answer.typing.rooms.iter();
                view.typing.extend(rooms.map(|row| (row.room_id.clone(), row.user_ids.clone())));
                return judged.map_err(|(stream, Difference { is_lacking, token, what })| {
                    let (client, instance, stream) = (client.clone(), instance.clone(), stream.into());
                    Violation::Client(match is_lacking {
                        true => ClientViolation::NotTold { client, instance, stream, token, what },
                        false => ClientViolation::ToldWrongly { client, instance, stream, token, what },
                    })
                });
            }
            Observation::CalmOver => {
                let behind = self.pending().into_iter().next().map(ClientViolation::StillBehind);
                return behind.map_or(Ok(()), |behind| Err(Violation::Client(behind)));
            }
            _ => {}
        }
        Ok(())
    }

    /// What is pending for a client is told as for an instance that goes by the client's name.
    fn pending(&self) -> Vec<Pending> {
        let mut pending = Vec::new();
        for (client, view) in &self.clients {
            for (stream, promise, writer) in self.topology.writers() {
                let what = match promise {
                    Promise::Memory if *stream == *typing::NAME => self.lacking_rooms(view),
                    _ if self.broken.contains(stream) => None,
                    _ if is_told(stream.as_str()) => self.lack(view, stream, writer),
                    _ => None,
                };
                let feed = || Feed::new(&client.to_string().into(), stream, writer);
                pending.extend(what.map(|what| Pending { feed: feed(), what }));
            }
        }
        pending
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}
