//! What can be asked, in types.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Change, HttpClient, HttpError};
use crate::protocol::{InstanceName, Token};
use crate::store::account_data::Datum;
use crate::streams::{self, ReceiptsRow};
use crate::transport::http::endpoints::account_data;
use crate::transport::http::endpoints::fed_send_edu::{self, DirectToDevice, Receipt, Receipts, Typing};
use crate::transport::http::endpoints::presence::{self, BumpBody, SetBody};
use crate::transport::http::endpoints::send_events::{self, SentEvent};

/// What became of events that were sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// The last token.
    pub stream_id: Token,
    /// The id of the last event.
    pub event_id: String,
}

impl HttpClient {
    /// Has `writer` persist events of rooms that fall to it.
    pub async fn send_events(&self, writer: &InstanceName, events: &[SentEvent]) -> Result<Sent, HttpError> {
        let events: Vec<Value> = events.iter().map(SentEvent::to_request).collect();
        let body = Map::from_iter([("events".to_owned(), events.into())]);
        let sent = Change { endpoint: send_events::NAME, arguments: &[], has_transaction_id: true, body };
        let sent: Sent = understand(self.change(writer, sent).await?)?;
        self.wait_for(streams::events::NAME, writer, sent.stream_id).await?;
        Ok(sent)
    }

    /// Has `writer` keep what a user keeps on the server. Returns its token.
    pub async fn set_account_data(&self, writer: &InstanceName, datum: &Datum) -> Result<Token, HttpError> {
        let Datum { user_id, room_id, kind, content } = datum;
        let body = Map::from_iter([("content".to_owned(), content.clone())]);
        let (endpoint, arguments) = match room_id {
            Some(room_id) => (account_data::OF_ROOM, vec![user_id.as_str(), room_id, kind]),
            None => (account_data::OF_USER, vec![user_id.as_str(), kind]),
        };
        let set = Change { endpoint, arguments: &arguments, has_transaction_id: false, body };
        let answer: account_data::Answer = understand(self.change(writer, set).await?)?;
        self.wait_for(streams::account_data::NAME, writer, answer.max_stream_id).await?;
        Ok(answer.max_stream_id)
    }

    /// Tells `writer`, to whom their rooms fall, up to where users of `origin` have read.
    pub async fn send_receipts(
        &self,
        writer: &InstanceName,
        origin: &str,
        receipts: Vec<ReceiptsRow>,
    ) -> Result<(), HttpError> {
        let mut content = Receipts::new();
        for ReceiptsRow { room_id, kind, user_id, event_id, thread_id, data } in receipts {
            let mut data = data.0.as_object().cloned().unwrap_or_default();
            data.extend(thread_id.map(|thread_id| ("thread_id".to_owned(), thread_id.into())));
            let users = content.entry(room_id).or_default().entry(kind).or_default();
            users.insert(user_id, Receipt { event_ids: vec![event_id], data });
        }
        self.send_edu(writer, fed_send_edu::RECEIPT, origin, content).await
    }

    /// Has `writer` put messages from a user of `origin` into the inboxes of devices.
    pub async fn send_to_device(
        &self,
        writer: &InstanceName,
        origin: &str,
        messages: DirectToDevice,
    ) -> Result<(), HttpError> {
        self.send_edu(writer, fed_send_edu::DIRECT_TO_DEVICE, origin, messages).await
    }

    /// Tells `writer` that a user of `origin` begins or stops typing.
    pub async fn set_typing(&self, writer: &InstanceName, origin: &str, typing: Typing) -> Result<(), HttpError> {
        self.send_edu(writer, fed_send_edu::TYPING, origin, typing).await
    }

    /// Has `writer` change a user's presence.
    pub async fn set_presence(&self, writer: &InstanceName, user_id: &str, set: SetBody) -> Result<(), HttpError> {
        self.tell(writer, presence::SET_STATE, user_id, set).await
    }

    /// Tells `writer` that a user is active.
    pub async fn bump_presence(&self, writer: &InstanceName, user_id: &str, bump: BumpBody) -> Result<(), HttpError> {
        self.tell(writer, presence::BUMP_ACTIVE, user_id, bump).await
    }

    /// Waits until this instance has seen `token` of `writer`. The position that came with the answer may be below it, if
    /// another write is under way there.
    async fn wait_for(&self, stream: &str, writer: &InstanceName, token: Token) -> Result<(), HttpError> {
        if let Some(positions) = &self.positions {
            positions.wait(stream, writer, token).await?;
        }
        Ok(())
    }

    async fn tell(
        &self,
        writer: &InstanceName,
        endpoint: &'static str,
        user_id: &str,
        body: impl Serialize,
    ) -> Result<(), HttpError> {
        let body = serde_json::from_value(serde_json::to_value(body)?)?;
        self.change(writer, Change { endpoint, arguments: &[user_id], has_transaction_id: false, body }).await.map(drop)
    }

    async fn send_edu(
        &self,
        writer: &InstanceName,
        kind: &str,
        origin: &str,
        content: impl Serialize,
    ) -> Result<(), HttpError> {
        let edu = fed_send_edu::Body { content, origin: origin.to_owned() };
        let body = serde_json::from_value(serde_json::to_value(edu)?)?;
        let sent = Change { endpoint: fed_send_edu::NAME, arguments: &[kind], has_transaction_id: true, body };
        self.change(writer, sent).await.map(drop)
    }
}

fn understand<T: DeserializeOwned>(answer: Map<String, Value>) -> Result<T, HttpError> {
    Ok(serde_json::from_value(answer.into())?)
}
