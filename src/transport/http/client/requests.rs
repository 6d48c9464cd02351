//! One method for each request that writes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Change, HttpClient, HttpError};
use crate::store::account_data::Datum;
use crate::transport::http::Endpoint;
use crate::transport::http::endpoints::account_data;
use crate::transport::http::endpoints::fed_send_edu::{self, Body, DirectToDevice, Receipt, Receipts, Typing};
use crate::transport::http::endpoints::presence::{BumpBody, SetBody};
use crate::transport::http::endpoints::send_events::{self, SentEvent};
use squall_protocol::rows::{self, ReceiptsRow};
use squall_protocol::{InstanceName, Token};

impl HttpClient {
    /// Asks `writer` to persist events of rooms that it writes.
    pub async fn send_events(
        &self,
        writer: &InstanceName,
        events: &[SentEvent],
    ) -> Result<send_events::Response, HttpError> {
        let events: Vec<Value> = events.iter().map(SentEvent::to_request).collect();
        let body = Map::from_iter([("events".to_owned(), events.into())]);
        let change = Change { endpoint: Endpoint::SendEvents, arguments: &[], body };
        let sent: send_events::Response = parse_response(self.change(writer, change).await?)?;
        self.wait_for(rows::events::NAME, writer, sent.stream_id).await?;
        Ok(sent)
    }

    /// Asks `writer` to set account data of a user. Returns the token of the row.
    pub async fn set_account_data(&self, writer: &InstanceName, datum: &Datum) -> Result<Token, HttpError> {
        let Datum { user_id, room_id, kind, content } = datum;
        let body = Map::from_iter([("content".to_owned(), content.clone())]);
        let (endpoint, arguments) = match room_id {
            Some(room_id) => (Endpoint::AddRoomAccountData, vec![user_id.as_str(), room_id, kind]),
            None => (Endpoint::AddUserAccountData, vec![user_id.as_str(), kind]),
        };
        let change = Change { endpoint, arguments: &arguments, body };
        let response: account_data::Response = parse_response(self.change(writer, change).await?)?;
        self.wait_for(rows::account_data::NAME, writer, response.max_stream_id).await?;
        Ok(response.max_stream_id)
    }

    /// Sends read receipts of users of `origin` to `writer`, the writer of the rooms' receipts.
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
        let edu = Body { is_shared_out: true, ..Body::new(origin, content) };
        self.send_edu(writer, fed_send_edu::RECEIPT, edu).await
    }

    /// Asks `writer` to deliver messages from a user of `origin` to devices.
    pub async fn send_to_device(
        &self,
        writer: &InstanceName,
        origin: &str,
        messages: DirectToDevice,
    ) -> Result<(), HttpError> {
        self.send_edu(writer, fed_send_edu::DIRECT_TO_DEVICE, Body::new(origin, messages)).await
    }

    /// Tells `writer` that a user of `origin` starts or stops typing.
    pub async fn set_typing(&self, writer: &InstanceName, origin: &str, typing: Typing) -> Result<(), HttpError> {
        self.send_edu(writer, fed_send_edu::TYPING, Body::new(origin, typing)).await
    }

    /// Asks `writer` to set a user's presence.
    pub async fn set_presence(&self, writer: &InstanceName, user_id: &str, set: SetBody) -> Result<(), HttpError> {
        self.change_presence(writer, Endpoint::SetPresence, user_id, set).await
    }

    /// Tells `writer` that a user was active.
    pub async fn bump_presence(&self, writer: &InstanceName, user_id: &str, bump: BumpBody) -> Result<(), HttpError> {
        self.change_presence(writer, Endpoint::BumpPresence, user_id, bump).await
    }

    /// Waits until this instance has received `token` of `writer`. The position in the response may be below `token` if
    /// another write is in progress there.
    async fn wait_for(&self, stream: &str, writer: &InstanceName, token: Token) -> Result<(), HttpError> {
        if let Some(positions) = &self.positions {
            positions.wait(stream, writer, token).await?;
        }
        Ok(())
    }

    async fn change_presence(
        &self,
        writer: &InstanceName,
        endpoint: Endpoint,
        user_id: &str,
        body: impl Serialize,
    ) -> Result<(), HttpError> {
        let body = serde_json::from_value(serde_json::to_value(body)?)?;
        self.change(writer, Change { endpoint, arguments: &[user_id], body }).await.map(drop)
    }

    async fn send_edu(&self, writer: &InstanceName, kind: &str, edu: Body<impl Serialize>) -> Result<(), HttpError> {
        let body = serde_json::from_value(serde_json::to_value(edu)?)?;
        self.change(writer, Change { endpoint: Endpoint::SendEdu, arguments: &[kind], body }).await.map(drop)
    }
}

fn parse_response<T: DeserializeOwned>(response: Map<String, Value>) -> Result<T, HttpError> {
    Ok(serde_json::from_value(response.into())?)
}
