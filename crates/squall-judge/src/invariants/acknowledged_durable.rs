//! Acknowledged writes are durable.
//!
//! When an instance acknowledges a write, the rows are in the database: they survive the end of the process. An instance
//! that answers before the commit, or in spite of an error, loses messages that their senders believe to be sent. Synapse
//! answers 200 to another server although it failed to handle the server's EDU.
//!
//! No false alarm: the database reports a commit at the instant at which it takes effect, and no process can know of it
//! earlier. An acknowledged write that a later one has overwritten was committed, or its caller was given the token of the
//! later one. For receipts of several rooms it is enough that the user has any receipt there: the storm's users of those
//! read once.

use std::collections::BTreeSet;

use serde::Serialize;
use thiserror::Error;

use crate::due::stream_of;
use crate::invariant::Invariant;
use crate::names::{Source, Table};
use crate::observation::{Client, Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, StreamName, Token};

/// An acknowledged write that is not in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A write was acknowledged under a token that has no committed row.
    #[error("{instance} acknowledged a write under token {token} of {stream} of {writer}, which has no row")]
    NoRow { instance: InstanceName, stream: StreamName, writer: InstanceName, token: Token },
    /// A message was acknowledged and is not in a recipient's inbox.
    #[error("{instance} acknowledged {message_id}, which was never put into the inbox of {client}")]
    NoMessage { instance: InstanceName, client: Client, message_id: String },
    /// A receipt was acknowledged together with those of other rooms, and was never written.
    #[error("{instance} acknowledged a receipt of {user_id} in {room_id}, who has none there")]
    NoReceipt { instance: InstanceName, user_id: String, room_id: String },
}

/// Checks every acknowledgement against the database.
#[derive(Debug, Default)]
pub struct AcknowledgedDurable {
    committed: Table<Source, BTreeSet<Token>>,
    messages: BTreeSet<(Client, String)>,
    /// The receipts: user and room.
    receipts: BTreeSet<(String, String)>,
    judged: u64,
}

impl Invariant for AcknowledgedDurable {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] =
        &[Kind::Committed, Kind::WriteAcked, Kind::MessagesAcked, Kind::MessageLeft, Kind::ReceiptsAcked];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Committed { token, row, .. } => {
                if let Row::Receipts(receipt) = row {
                    self.receipts.insert((receipt.user_id.clone(), receipt.room_id.clone()));
                }
                self.committed.or_default(scene.source()).insert(*token);
            }
            Observation::MessageLeft { client, message_id, .. } => {
                self.messages.insert((client.clone(), message_id.clone()));
            }
            Observation::WriteAcked { instance, what, writer, token } => {
                self.judged += 1;
                let committed = self.committed.get(scene.source());
                if !committed.is_some_and(|committed| committed.contains(token)) {
                    let (instance, stream, writer) = (instance.clone(), stream_of(what).into(), writer.clone());
                    return Err(Violation::NoRow { instance, stream, writer, token: *token });
                }
            }
            Observation::MessagesAcked { instance, clients, message_id } => {
                self.judged += 1;
                let is_lost = |client: &&Client| !self.messages.contains(&((*client).clone(), message_id.clone()));
                if let Some(client) = clients.iter().find(is_lost) {
                    let (instance, client, message_id) = (instance.clone(), client.clone(), message_id.clone());
                    return Err(Violation::NoMessage { instance, client, message_id });
                }
            }
            Observation::ReceiptsAcked { instance, user_id, room_ids } => {
                self.judged += 1;
                let is_lost = |room_id: &&String| !self.receipts.contains(&(user_id.clone(), (*room_id).clone()));
                if let Some(room_id) = room_ids.iter().find(is_lost) {
                    let (instance, user_id, room_id) = (instance.clone(), user_id.clone(), room_id.clone());
                    return Err(Violation::NoReceipt { instance, user_id, room_id });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use crate::invariants::made_up;
    use crate::violation;
    use squall_protocol::Cached;

    fn judge(story: &[Observation]) -> String {
        let mut invariant = Alone::<AcknowledgedDurable>::default();
        violation::kind(&story.iter().try_for_each(|observation| invariant.observe(SimTime(0), observation)))
    }

    #[test]
    fn a_write_is_acknowledged_under_the_token_of_a_committed_row() {
        let committed = |token| {
            let (stream, writer) = ("events".into(), "writer1".into());
            Observation::Committed { stream, writer, token: Token(token), row: made_up::event("$a") }
        };
        let acked = |writer: &str, token| {
            let what = Cached::Event { event_id: "$a".into() };
            Observation::WriteAcked { instance: "worker1".into(), what, writer: writer.into(), token: Token(token) }
        };
        assert_eq!(judge(&[committed(3), committed(4), acked("writer1", 4), acked("writer1", 3)]), "none");
        assert_eq!(judge(&[acked("writer1", 3), committed(3)]), "no_row", "acknowledged before the commit");
        assert_eq!(judge(&[committed(3), acked("writer1", 4)]), "no_row");
        assert_eq!(judge(&[committed(3), acked("writer2", 3)]), "no_row");
    }

    #[test]
    fn receipts_of_several_rooms_are_acknowledged_once_all_are_written() {
        let written = |room: &str| {
            let row = serde_json::json!([room, "m.read", "@a", "$a", null, {}]);
            let row = Row::parse(&"receipts".into(), row).unwrap();
            Observation::Committed { stream: "receipts".into(), writer: "writer1".into(), token: Token(1), row }
        };
        let room_ids = vec!["!a".to_owned(), "!b".to_owned()];
        let acked = Observation::ReceiptsAcked { instance: "worker1".into(), user_id: "@a".into(), room_ids };
        assert_eq!(judge(&[written("!a"), written("!b"), acked.clone()]), "none");
        assert_eq!(judge(&[written("!a"), acked]), "no_receipt");
    }

    #[test]
    fn a_message_is_acknowledged_once_it_is_in_every_inbox() {
        let client = |device: &str| Client { user_id: "@a".into(), device_id: device.into() };
        let left =
            |device| Observation::MessageLeft { client: client(device), token: Token(1), message_id: "m".into() };
        let (instance, clients) = ("worker1".into(), vec![client("A"), client("B")]);
        let acked = Observation::MessagesAcked { instance, clients, message_id: "m".into() };
        assert_eq!(judge(&[left("A"), left("B"), acked.clone()]), "none");
        assert_eq!(judge(&[left("A"), acked.clone()]), "no_message");
        assert_eq!(judge(&[acked]), "no_message");
    }
}
