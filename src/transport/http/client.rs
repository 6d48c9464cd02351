//! The asking end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::{GET_UPDATES, INSTANCE_HEADER, PATH_PREFIX};
use crate::env::{Address, Env, LocalBoxFuture};
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::{RemoteUpdates, Row, RowError, UpdateError, Updates};

/// How long an answer may take once the connection is made.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The length of a transaction id, in characters.
const TRANSACTION_ID_LENGTH: usize = 10;

/// Why a request brought no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The configuration names no address for this instance.
    #[error("no address is configured for {0}: add it to the instance map")]
    UnknownInstance(InstanceName),
    /// The other instance could not be reached.
    #[error("cannot reach {0}: {1}")]
    Connect(Address, std::io::Error),
    /// The connection failed in the middle of the exchange.
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    /// There was no answer within [`RESPONSE_TIMEOUT`].
    #[error("no answer from {0} within {RESPONSE_TIMEOUT:?}")]
    Timeout(Address),
    /// The other instance refused.
    #[error("{address} answered {status}: {body}")]
    Status {
        /// Who answered.
        address: Address,
        /// With which status.
        status: StatusCode,
        /// And what it said.
        body: String,
    },
    /// The answer was not of the expected form.
    #[error("an answer that is not one: {0}")]
    Json(#[from] serde_json::Error),
    /// A row in the answer could not be understood.
    #[error("{0}")]
    Row(#[from] RowError),
}

/// Asks other instances. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    shared: Rc<Shared>,
}

struct Shared {
    env: Env,
    instance: InstanceName,
    addresses: BTreeMap<InstanceName, Address>,
    secret: String,
    requests: Cell<u64>,
}

/// The answer of `get_repl_stream_updates`.
#[derive(Deserialize)]
struct UpdatesBody {
    updates: Vec<(Token, Value)>,
    upto_token: Token,
    limited: bool,
}

impl HttpClient {
    /// A client of `instance` that finds the others at `addresses` and proves itself with `secret`.
    pub fn new(env: Env, instance: InstanceName, addresses: BTreeMap<InstanceName, Address>, secret: String) -> Self {
        HttpClient { shared: Rc::new(Shared { env, instance, addresses, secret, requests: Cell::new(0) }) }
    }

    async fn get_updates(
        &self,
        writer: &InstanceName,
        stream: &StreamName,
        from: Token,
        upto: Token,
    ) -> Result<Updates, HttpError> {
        let name = utf8_percent_encode(stream.as_str(), NON_ALPHANUMERIC);
        let transaction_id = self.transaction_id();
        let path = format!("{PATH_PREFIX}{GET_UPDATES}/{name}/{transaction_id}?from_token={from}&upto_token={upto}");
        let body: UpdatesBody = serde_json::from_slice(&self.get(writer, &path).await?)?;
        let rows = body.updates.into_iter().map(|(token, row)| Ok((token, Row::parse(stream, row)?)));
        Ok(Updates { rows: rows.collect::<Result<_, RowError>>()?, upto: body.upto_token, limited: body.limited })
    }

    fn transaction_id(&self) -> String {
        let number = self.shared.requests.get();
        self.shared.requests.set(number + 1);
        let rng = self.shared.env.chance.of("transaction_id").of(number).rng();
        rng.sample_iter(Alphanumeric).take(TRANSACTION_ID_LENGTH).map(char::from).collect()
    }

    async fn get(&self, target: &InstanceName, path: &str) -> Result<Bytes, HttpError> {
        let Shared { env, instance, addresses, secret, .. } = &*self.shared;
        let address = addresses.get(target).ok_or_else(|| HttpError::UnknownInstance(target.clone()))?;
        let stream = env.network.connect(address).await.map_err(|error| HttpError::Connect(address.clone(), error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // A failure of the connection also reaches the sender.
        let connection = env.tasks.spawn("http_client_connection", async move { connection.await.ok() });
        let _stop = AbortOnDrop(connection);
        let request = Request::get(path)
            .header(header::HOST, address.to_string())
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {secret}"))
            .header(INSTANCE_HEADER, instance.as_str())
            .body(Empty::<Bytes>::new())
            .expect("the path is percent-encoded, and name and secret were checked at the start");
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let body = String::from_utf8_lossy(&body).into_owned();
            Err(HttpError::Status { address: address.clone(), status, body })
        };
        let answer = tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await;
        answer.unwrap_or_else(|_| Err(HttpError::Timeout(address.clone())))
    }
}

impl RemoteUpdates for HttpClient {
    fn updates(
        &self,
        writer: &InstanceName,
        stream: &StreamName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        let (client, writer, stream) = (self.clone(), writer.clone(), stream.clone());
        Box::pin(async move { Ok(client.get_updates(&writer, &stream, from, upto).await?) })
    }
}

/// Ends a helper task with whoever needed it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
