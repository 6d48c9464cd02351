//! Positions that travel with requests and answers, under the key `_INT_STREAM_POS` (Synapse #14820).
//!
//! Whoever asks says how far the streams that it writes have come, and is answered by somebody who has seen that. The
//! answer says how far the streams are that the other one writes, and the asker goes on once it has seen that. So a
//! read after the call sees what the call has written, on both ends.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Reply;
use crate::protocol::{InstanceName, Token};
use crate::replication::{WaitError, Waiters};
use crate::streams::{self, Stream};

/// The key of the positions. It is none of the request's or the answer's own and must not get beyond this file
/// (Synapse #15309).
const KEY: &str = "_INT_STREAM_POS";

/// The streams in the order in which Synapse names them.
const ORDER: [&str; 7] = [
    streams::events::NAME,
    streams::presence::NAME,
    streams::typing::NAME,
    streams::receipts::NAME,
    streams::caches::NAME,
    streams::to_device::NAME,
    streams::account_data::NAME,
];

/// The positions of one instance's streams, and the wait for those of others.
pub struct StreamPositions {
    instance: InstanceName,
    streams: Vec<Rc<dyn Stream>>,
    waiters: Rc<Waiters>,
}

/// What an asker says of the streams that it writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AskerPositions {
    instance_name: InstanceName,
    streams: indexmap::IndexMap<String, Token>,
}

impl StreamPositions {
    /// The positions of `streams` as `instance` has them.
    pub fn new(instance: InstanceName, streams: &[Rc<dyn Stream>], waiters: Rc<Waiters>) -> Rc<Self> {
        let mut streams = streams.to_vec();
        streams.sort_by_key(|stream| ORDER.iter().position(|name| *name == stream.name().as_str()));
        Rc::new(StreamPositions { instance, streams, waiters })
    }

    /// How far the streams are that this instance writes.
    ///
    /// Not the positions that are announced: where only others have written they are ahead of our last row, and whoever
    /// waited for that would wait for the next announcement (Synapse #16473).
    fn written(&self) -> impl Iterator<Item = (&str, Token)> {
        let own = self.streams.iter().filter(|stream| stream.writers().contains(&self.instance));
        own.map(|stream| {
            let (written, position) = (stream.written_upto(&self.instance), stream.position(&self.instance));
            (stream.name().as_str(), written.min(position))
        })
    }

    /// Puts this instance's positions into the body of a request.
    pub fn add_to_request(&self, body: &mut Map<String, Value>) {
        let streams: Map<String, Value> = self.written().map(|(name, token)| (name.into(), token.0.into())).collect();
        body.insert(KEY.into(), serde_json::json!({ "instance_name": self.instance, "streams": streams }));
    }

    /// Takes the asker's positions out of a request's body. A request that brings none waits for nothing.
    pub fn take_from_request(body: &mut Map<String, Value>) -> Result<Option<AskerPositions>, serde_json::Error> {
        body.remove(KEY).map(AskerPositions::deserialize).transpose()
    }

    /// The body of the answer: the reply's, with this instance's positions in it. What the request itself has written
    /// may be ahead of the position, as long as an earlier write is still under way.
    pub fn answer(&self, reply: &Reply) -> Map<String, Value> {
        let position = |(name, token): (&str, Token)| {
            let wrote = reply.wrote.as_ref().filter(|(stream, _)| stream == name).map_or(token, |(_, wrote)| *wrote);
            (name.to_owned(), Value::from(token.max(wrote).0))
        };
        let positions: Map<String, Value> = self.written().map(position).collect();
        let mut body = reply.body.clone();
        body.insert(KEY.into(), positions.into());
        body
    }

    /// Waits until this instance has seen what the asker had written.
    pub async fn wait_for_asker(&self, asker: &AskerPositions) -> Result<(), WaitError> {
        for (stream, token) in &asker.streams {
            self.wait(stream, &asker.instance_name, *token).await?;
        }
        Ok(())
    }

    /// Takes the positions of `writer` out of its answer, and waits until this instance has seen what they stand for.
    pub async fn wait_for_answerer(
        &self,
        writer: &InstanceName,
        positions: Map<String, Value>,
    ) -> Result<(), WaitError> {
        for (stream, token) in positions {
            if let Some(token) = token.as_i64() {
                self.wait(&stream, writer, Token(token)).await?;
            }
        }
        Ok(())
    }

    /// Waits until this instance has seen `token` of `writer`.
    ///
    /// A stream that this instance does not have, or that the other one does not write here, is one of another version
    /// or configuration: nothing of it can be read here, so there is nothing to wait for.
    pub async fn wait(&self, stream: &str, writer: &InstanceName, token: Token) -> Result<(), WaitError> {
        match self.waiters.wait_for_stream_position(stream, writer, token).await {
            Err(WaitError::UnknownStream(_) | WaitError::NotAWriter { .. }) => Ok(()),
            waited => waited,
        }
    }
}

/// Takes the positions out of an answer.
pub fn take_from_answer(body: &mut Map<String, Value>) -> Map<String, Value> {
    match body.remove(KEY) {
        Some(Value::Object(positions)) => positions,
        _ => Map::new(),
    }
}
