//! Clients miss nothing.
//!
//! An answer has everything that was committed after the client's token and not after the answer's own token, once, and
//! nothing else. The next request brings the token of the last answer. So over a client's life no event and no message is
//! missed or delivered twice, whichever instances served it and however often answers were lost. Users missed events when
//! tokens stood at the slowest writer and then at the fastest (Synapse #8170, #8439), when a token was ahead of the rows
//! that were read (#14158), and when messages were deleted before they had arrived.
//!
//! After the storm every client reaches the last committed token of every stream, of idle writers too (#8499), and the
//! current typing users.
//!
//! No false alarm: a client without an answer is not judged. See `events`, `inboxes` and `keyed` for the liberties of
//! each stream. Typing is judged in the calm alone, because an answer may be of a run of the writer that has ended.

mod difference;
mod events;
mod inboxes;
mod keyed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::difference::Difference;
use self::events::Events;
use self::inboxes::Inboxes;
use self::keyed::Keyed;
use serde::Serialize;
use thiserror::Error;

use crate::due::{Position, is_in_client_tokens};
use crate::invariant::Invariant;
use crate::observation::{Answer, Client, Kind, Observation, SimTime};
use crate::pending::{Pending, PendingReason};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Delivery;
use squall_protocol::rows::{self, Row, account_data, presence, receipts, to_device, typing};
use squall_protocol::{InstanceName, StreamName, SyncToken, Token};

/// An answer that lacks something, or has too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// An answer lacks something that is after the client's token and not after the answer's own.
    #[error("{client} did not get {what} from {instance}: token {token} of {stream}")]
    NotTold { client: Client, instance: InstanceName, stream: StreamName, token: Token, what: String },
    /// An answer has something that was not committed, that is not between its tokens, or that is out of order.
    #[error(
        "{client} got {what} from {instance}: token {token} of {stream}, \
         which is not committed, not between the answer's tokens, or out of order"
    )]
    ToldWrongly { client: Client, instance: InstanceName, stream: StreamName, token: Token, what: String },
    /// The calm is over, and a client has not reached the last token.
    #[error("long after the storm, {0}")]
    StillBehind(Pending),
}

/// Checks every answer against the committed rows.
pub struct ClientsMissNothing {
    topology: Topology,
    events: Events,
    inboxes: Inboxes,
    keyed: BTreeMap<&'static str, Keyed>,
    /// The highest token committed, by stream.
    highest: BTreeMap<StreamName, Token>,
    /// The typing users, by room.
    typing: BTreeMap<String, Vec<String>>,
    clients: BTreeMap<Client, View>,
    /// The streams that cannot be read any more.
    broken: BTreeSet<StreamName>,
    judged: u64,
}

/// The last token and the typing users that a client was given.
#[derive(Default)]
struct View {
    token: Option<SyncToken>,
    typing: BTreeMap<String, Vec<String>>,
}

/// The streams of which a client gets the newest row of each key.
const KEYED: [&str; 3] = [receipts::NAME, account_data::NAME, presence::NAME];

impl ClientsMissNothing {
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
        // A new client gets no history, but the messages that wait for it.
        let from = since.unwrap_or(next);
        let in_stream = |stream| move |difference| (stream, difference);
        let since_events = Position::of_vector(&from.events);
        let events = self.events.judge(&since_events, &Position::of_vector(&next.events), &answer.events);
        events.map_err(in_stream(rows::events::NAME))?;
        let acknowledged = since.map_or(Token(0), |since| since.to_device);
        let messages = self.inboxes.judge(client, acknowledged, next.to_device, &answer.to_device);
        messages.map_err(in_stream(to_device::NAME))?;
        for (stream, rows) in &self.keyed {
            let Some(since) = Position::in_stream(from, stream) else { continue };
            let Some(next) = Position::in_stream(next, stream) else { continue };
            let answered = answer.rows.iter().filter(|(_, row)| is_of(stream, row));
            rows.judge(&client.user_id, &since, &next, answered).map_err(in_stream(stream))?;
        }
        Ok(())
    }

    /// Returns the reason why a client is behind `writer`'s rows; none if it is not.
    fn lack(&self, view: &View, stream: &StreamName, writer: &InstanceName) -> Option<PendingReason> {
        let Some(token) = &view.token else { return Some(PendingReason::Following) };
        let position = Position::in_stream(token, stream.as_str())?.of_writer(writer);
        let expected = self.highest.get(stream).copied().filter(|highest| position < *highest)?;
        Some(PendingReason::Position { position, expected })
    }

    /// Returns what is pending for clients. The instance is the name of the client.
    fn behind(&self) -> impl Iterator<Item = Pending> {
        self.clients.iter().flat_map(move |(client, view)| {
            self.topology.writers().filter_map(move |(stream, delivery, writer)| {
                let what = match delivery {
                    Delivery::Memory if *stream == *typing::NAME => self.lacking_rooms(view),
                    _ if self.broken.contains(stream) => None,
                    _ if is_in_client_tokens(stream.as_str()) => self.lack(view, stream, writer),
                    _ => None,
                }?;
                Some(Pending { follower: FollowerKey::new(&client.to_string().into(), stream, writer), what })
            })
        })
    }

    fn lacking_rooms(&self, view: &View) -> Option<PendingReason> {
        let rooms = self.typing.keys().chain(view.typing.keys());
        let differs = |room: &&String| typing_users(&self.typing, room) != typing_users(&view.typing, room);
        let rooms: BTreeSet<&String> = rooms.filter(differs).collect();
        let rooms: Vec<String> = rooms.into_iter().cloned().collect();
        (!rooms.is_empty()).then_some(PendingReason::Rooms { rooms, position: Token(0) })
    }
}

fn typing_users<'a>(rooms: &'a BTreeMap<String, Vec<String>>, room: &str) -> &'a [String] {
    rooms.get(room).map_or(&[], Vec::as_slice)
}

/// Returns true if `row` is a row of this keyed stream.
fn is_of(stream: &str, row: &Row) -> bool {
    match row {
        Row::AccountData(_) => stream == account_data::NAME,
        Row::Presence(_) => stream == presence::NAME,
        Row::Receipts(_) => stream == receipts::NAME,
        _ => false,
    }
}

impl Invariant for ClientsMissNothing {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Started,
        Kind::Committed,
        Kind::Changed,
        Kind::MessageLeft,
        Kind::SyncAsked,
        Kind::Synced,
        Kind::StreamBroken,
        Kind::CalmOver,
    ];

    fn new(topology: &Topology) -> Self {
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

    fn observe(&mut self, _at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. }
                if self.topology.written_by(instance).any(|stream| stream.as_str() == typing::NAME) =>
            {
                self.typing.clear();
            }
            Observation::Committed { stream, writer, token, row } if is_in_client_tokens(stream.as_str()) => {
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
                    let client = client.clone();
                    let instance = instance.clone();
                    let stream = StreamName::from(stream);
                    if is_lacking {
                        Violation::NotTold { client, instance, stream, token, what }
                    } else {
                        Violation::ToldWrongly { client, instance, stream, token, what }
                    }
                });
            }
            Observation::CalmOver => {
                if let Some(pending) = self.behind().next() {
                    return Err(Violation::StillBehind(pending));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn pending<'a>(&'a self, _scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a> {
        Box::new(self.behind())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}
