//! Positions that requests and responses carry under the key `_INT_STREAM_POS` (Synapse #14820).
//!
//! A request carries the positions of the streams that the client writes; the server handles it once it has received
//! the rows up to them. The response carries the positions of the streams that the server writes; the client continues
//! once it has received the rows up to those. So a read after the call sees what the call has written, on both
//! instances.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Reply;
use crate::replication::{WaitError, Waiters};
use crate::streams::Stream;
use squall_protocol::{InstanceName, Token, rows};

/// The key of the positions. It is no part of the request's or the response's own content and must not leave this file
/// (Synapse #15309).
const KEY: &str = "_INT_STREAM_POS";

/// The streams in Synapse's order.
const ORDER: [&str; 7] = [
    rows::events::NAME,
    rows::presence::NAME,
    rows::typing::NAME,
    rows::receipts::NAME,
    rows::caches::NAME,
    rows::to_device::NAME,
    rows::account_data::NAME,
];

/// The positions of one instance's streams, and the wait for positions of other instances.
pub struct StreamPositions {
    instance: InstanceName,
    streams: Vec<Rc<dyn Stream>>,
    waiters: Rc<Waiters>,
}

/// The positions of the streams that a client writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClientPositions {
    instance_name: InstanceName,
    streams: indexmap::IndexMap<String, Token>,
}

impl StreamPositions {
    /// Creates the positions of `streams` on `instance`.
    pub fn new(instance: InstanceName, streams: &[Rc<dyn Stream>], waiters: Rc<Waiters>) -> Rc<Self> {
        let mut streams = streams.to_vec();
        streams.sort_by_key(|stream| ORDER.iter().position(|name| *name == stream.name().as_str()));
        Rc::new(StreamPositions { instance, streams, waiters })
    }

    /// Returns the positions of the streams that this instance writes.
    ///
    /// They are not the announced positions, which are ahead of this instance's last row where only other instances have
    /// written. A peer that waited for those would wait for the next announcement (Synapse #16473).
    fn written(&self) -> impl Iterator<Item = (&str, Token)> {
        let own = self.streams.iter().filter(|stream| stream.writers().contains(&self.instance));
        own.map(|stream| {
            let (written, position) = (stream.written_upto(&self.instance), stream.position(&self.instance));
            (stream.name().as_str(), written.min(position))
        })
    }

    /// Adds this instance's positions to the body of a request.
    pub fn add_to_request(&self, body: &mut Map<String, Value>) {
        let streams: Map<String, Value> = self.written().map(|(name, token)| (name.into(), token.0.into())).collect();
        body.insert(KEY.into(), serde_json::json!({ "instance_name": self.instance, "streams": streams }));
    }

    /// Removes the client's positions from the body of a request. Returns `None` if there are none.
    pub fn take_from_request(body: &mut Map<String, Value>) -> Result<Option<ClientPositions>, serde_json::Error> {
        body.remove(KEY).map(ClientPositions::deserialize).transpose()
    }

    /// Returns the body of a response: the reply's body and this instance's positions. The token that the request itself
    /// has written may be ahead of the position while an earlier write is in progress.
    pub fn response(&self, reply: &Reply) -> Map<String, Value> {
        let position = |(name, token): (&str, Token)| {
            let wrote = reply.wrote.as_ref().filter(|(stream, _)| stream == name).map_or(token, |(_, wrote)| *wrote);
            (name.to_owned(), Value::from(token.max(wrote).0))
        };
        let positions: Map<String, Value> = self.written().map(position).collect();
        let mut body = reply.body.clone();
        body.insert(KEY.into(), positions.into());
        body
    }

    /// Waits until this instance has received the rows up to the client's positions.
    pub async fn wait_for_client(&self, client: &ClientPositions) -> Result<(), WaitError> {
        for (stream, token) in &client.streams {
            self.wait(stream, &client.instance_name, *token).await?;
        }
        Ok(())
    }

    /// Waits until this instance has received the rows of `writer` up to the positions in its response.
    pub async fn wait_for_server(&self, writer: &InstanceName, positions: Map<String, Value>) -> Result<(), WaitError> {
        for (stream, token) in positions {
            if let Some(token) = token.as_i64() {
                self.wait(&stream, writer, Token(token)).await?;
            }
        }
        Ok(())
    }

    /// Waits until this instance has received the rows of `writer` up to `token`.
    ///
    /// An unknown stream, or one that `writer` does not write according to this configuration, belongs to another version
    /// or configuration. Nothing of it can be read here, so there is nothing to wait for.
    pub async fn wait(&self, stream: &str, writer: &InstanceName, token: Token) -> Result<(), WaitError> {
        match self.waiters.wait_for_stream_position(stream, writer, token).await {
            Err(WaitError::UnknownStream(_) | WaitError::NotAWriter { .. }) => Ok(()),
            waited => waited,
        }
    }
}

/// Removes the positions from the body of a response.
pub fn take_from_response(body: &mut Map<String, Value>) -> Map<String, Value> {
    match body.remove(KEY) {
        Some(Value::Object(positions)) => positions,
        _ => Map::new(),
    }
}
