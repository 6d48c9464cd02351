//! The asking end.
//!
//! What changes something is asked again, with the same transaction id, for as long as it is not known what became of it:
//! when the answer or the connection is lost, and when the other end says that it may work the next time. It takes
//! effect once, however often it is asked. Synapse asks again for ever after a time-out, and gives up on lost
//! connections at once.

mod requests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::time::Instant;

pub use requests::Sent;

use super::endpoints::get_repl_stream_updates;
use super::stream_positions::{self, StreamPositions};
use super::{PATH_PREFIX, TRANSACTION_HEADER, encode};
use crate::env::{Address, Env, LocalBoxFuture};
use crate::protocol::{InstanceName, JsonError, StreamName, Token, json};
use crate::replication::{Backoff, WaitError};
use crate::streams::{RemoteUpdates, Row, RowError, UpdateError, Updates};

/// How long an answer may take once the connection is made.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long something is asked again, unless the caller says otherwise.
pub const RETRY_FOR: Duration = Duration::from_secs(60);
/// How long an answer may be. Rows come in hundreds, and none holds an event's content.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How much of a refusal an error repeats, in characters.
const REFUSAL_CHARS_MAX: usize = 1_000;
/// The length of a transaction id, in characters.
const TRANSACTION_ID_LENGTH: usize = 10;

/// Why a request brought no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The configuration names no address for this instance.
    #[error("no address is configured for {0}: add it to the instance map")]
    UnknownInstance(InstanceName),
    /// An instance need not ask itself, and would wait for itself.
    #[error("{0} asks itself")]
    Itself(InstanceName),
    /// The other instance could not be reached.
    #[error("cannot reach {0}: {1}")]
    Connect(Address, std::io::Error),
    /// The connection failed in the middle of the exchange.
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    /// The answer is longer than [`ANSWER_BYTES_MAX`].
    #[error("an answer from {0} of more than {ANSWER_BYTES_MAX} bytes")]
    TooLong(Address),
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
        /// And what it said, cut to 1000 characters.
        body: String,
    },
    /// The answer was not JSON, or had a number in it that would be read as another one.
    #[error("an answer that is not one: {0}")]
    NotJson(#[from] JsonError),
    /// The answer was not of the expected form.
    #[error("an answer that is not one: {0}")]
    Json(#[from] serde_json::Error),
    /// A row in the answer could not be understood.
    #[error("{0}")]
    Row(#[from] RowError),
    /// It was asked again and again. Whether it took effect is not known.
    #[error("gave up after {attempts} attempts in {within:?}: {last}")]
    GaveUp {
        /// How often it was asked.
        attempts: u32,
        /// For how long.
        within: Duration,
        /// What became of the last attempt.
        last: Box<HttpError>,
    },
    /// It was done, but this instance has not seen it.
    #[error("done, but not seen here: {0}")]
    NotSeen(#[from] WaitError),
}

impl HttpError {
    /// Whether asking again may bring an answer.
    fn is_passing(&self) -> bool {
        match self {
            HttpError::Connect(..) | HttpError::Exchange(_) | HttpError::Timeout(_) => true,
            HttpError::Status { status, .. } => matches!(
                *status,
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
            _ => false,
        }
    }
}

/// Asks other instances. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    shared: Rc<Shared>,
    positions: Option<Rc<StreamPositions>>,
    retry_for: Duration,
}

struct Shared {
    env: Env,
    instance: InstanceName,
    addresses: BTreeMap<InstanceName, Address>,
    secret: String,
    requests: Cell<u64>,
}

/// Something to be changed elsewhere.
struct Change<'a> {
    endpoint: &'static str,
    arguments: &'a [&'a str],
    /// Whether the path ends with the transaction id. Otherwise a header carries it.
    has_transaction_id: bool,
    body: Map<String, Value>,
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
        let shared = Shared { env, instance, addresses, secret, requests: Cell::new(0) };
        HttpClient { shared: Rc::new(shared), positions: None, retry_for: RETRY_FOR }
    }

    /// The same client, whose changes are seen by whoever reads here after the call.
    #[must_use]
    pub fn with_positions(&self, positions: Rc<StreamPositions>) -> Self {
        HttpClient { positions: Some(positions), ..self.clone() }
    }

    /// The same client, which gives up after `retry_for`.
    #[must_use]
    pub fn retrying_for(&self, retry_for: Duration) -> Self {
        HttpClient { retry_for, ..self.clone() }
    }

    async fn get_updates(
        &self,
        writer: &InstanceName,
        stream: &StreamName,
        from: Token,
        upto: Token,
    ) -> Result<Updates, HttpError> {
        let (_, transaction_id) = self.next_request();
        let name = get_repl_stream_updates::NAME;
        let path =
            format!("{}?from_token={from}&upto_token={upto}", path_of(name, &[stream.as_str(), &transaction_id]));
        let request = self.request(Method::GET, &path, writer)?.body(Full::default());
        let answer = self.exchange(writer, request.expect(CHECKED)).await?;
        let text = std::str::from_utf8(&answer).map_err(|error| JsonError::Syntax(error.to_string()))?;
        let body = UpdatesBody::deserialize(json::parse(text)?)?;
        let rows = body.updates.into_iter().map(|(token, row)| Ok((token, Row::parse(stream, row)?)));
        Ok(Updates { rows: rows.collect::<Result<_, RowError>>()?, upto: body.upto_token, limited: body.limited })
    }

    /// Has `target` change something, and waits until that can be seen here.
    async fn change(&self, target: &InstanceName, change: Change<'_>) -> Result<Map<String, Value>, HttpError> {
        let Change { endpoint, arguments, has_transaction_id, mut body } = change;
        if let Some(positions) = &self.positions {
            positions.add_to_request(&mut body);
        }
        let (number, transaction_id) = self.next_request();
        let in_path = has_transaction_id.then_some(transaction_id.as_str());
        let path = path_of(endpoint, &arguments.iter().copied().chain(in_path).collect::<Vec<_>>());
        let mut request = self
            .request(Method::POST, &path, target)?
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json::render(&body.into()))))
            .expect(CHECKED);
        if !has_transaction_id {
            let id = HeaderValue::from_str(&transaction_id).expect("a transaction id is alphanumeric");
            request.headers_mut().insert(TRANSACTION_HEADER, id);
        }
        let answer = self.ask_until_known(number, target, request).await?;
        let mut answer: Map<String, Value> = serde_json::from_slice(&answer)?;
        let written = stream_positions::take_from_answer(&mut answer);
        if let Some(positions) = &self.positions {
            positions.wait_for_answerer(target, written).await?;
        }
        Ok(answer)
    }

    /// Asks until it is known what became of it, or for [`retrying_for`](Self::retrying_for).
    async fn ask_until_known(
        &self,
        number: u64,
        target: &InstanceName,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, HttpError> {
        let mut backoff = Backoff::new(&self.shared.env.chance.of("http_retry").of(number));
        let since = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.exchange(target, request.clone()).await {
                Err(error) if error.is_passing() => error,
                known => return known,
            };
            let delay = backoff.next_delay();
            if since.elapsed() + delay >= self.retry_for {
                return Err(HttpError::GaveUp { attempts, within: since.elapsed(), last: Box::new(error) });
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// The next request's number and transaction id.
    fn next_request(&self) -> (u64, String) {
        let number = self.shared.requests.get();
        self.shared.requests.set(number + 1);
        let rng = self.shared.env.chance.of("transaction_id").of(number).rng();
        (number, rng.sample_iter(Alphanumeric).take(TRANSACTION_ID_LENGTH).map(char::from).collect())
    }

    fn request(&self, method: Method, path: &str, target: &InstanceName) -> Result<http::request::Builder, HttpError> {
        let Shared { secret, .. } = &*self.shared;
        let request = Request::builder().method(method).uri(path);
        Ok(request
            .header(header::HOST, self.address(target)?.to_string())
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {secret}")))
    }

    fn address(&self, target: &InstanceName) -> Result<&Address, HttpError> {
        if *target == self.shared.instance {
            return Err(HttpError::Itself(target.clone()));
        }
        self.shared.addresses.get(target).ok_or_else(|| HttpError::UnknownInstance(target.clone()))
    }

    /// One request on a connection of its own, and the body of its answer.
    async fn exchange(&self, target: &InstanceName, request: Request<Full<Bytes>>) -> Result<Bytes, HttpError> {
        let env = &self.shared.env;
        let address = self.address(target)?;
        let stream = env.network.connect(address).await.map_err(|error| HttpError::Connect(address.clone(), error))?;
        let exchange = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // A failure of the connection also reaches the sender.
            let connection = env.tasks.spawn("http_client_connection", async move { connection.await.ok() });
            let _stop = AbortOnDrop(connection);
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| unread(address, error))?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let body = String::from_utf8_lossy(&body).chars().take(REFUSAL_CHARS_MAX).collect();
            Err(HttpError::Status { address: address.clone(), status, body })
        };
        let answer = tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await;
        answer.unwrap_or_else(|_| Err(HttpError::Timeout(address.clone())))
    }
}

/// Why an answer could not be read to its end.
fn unread(address: &Address, error: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => HttpError::Exchange(*error),
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>(), "there is no other error");
            HttpError::TooLong(address.clone())
        }
    }
}

/// Why building a request cannot fail.
const CHECKED: &str = "the path is percent-encoded, and name and secret were checked at the start";

fn path_of(endpoint: &str, parts: &[&str]) -> String {
    parts.iter().fold(format!("{PATH_PREFIX}{endpoint}"), |path, part| format!("{path}/{}", encode(part)))
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
