//! The client of other instances' endpoints.
//!
//! A request that writes is retried with the same transaction id while its outcome is unknown: when the response or the
//! connection is lost, and when the server says that a retry may succeed. It takes effect once, however often it is
//! sent. Synapse retries for ever after a time-out, and gives up at once when a connection is lost.

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

use super::endpoints::updates;
use super::stream_positions::{self, StreamPositions};
use super::{Endpoint, PATH_PREFIX, TRANSACTION_HEADER, encode};
use crate::observer::Env;
use crate::replication::{Backoff, WaitError};
use crate::streams::{RemoteUpdates, UpdateError};
use crate::tasks;
use crate::transport::tls_mismatch::{self, Plain};
use squall_env::{Address, LocalBoxFuture};
use squall_protocol::rows::{Row, RowError, Updates};
use squall_protocol::{InstanceName, JsonError, StreamName, Token, json};

/// Time within which a response must arrive once the connection is established.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which a request that writes is retried, unless the caller sets another.
pub const RETRY_FOR: Duration = Duration::from_secs(60);
/// Maximum length of a response body, in bytes. Rows come in hundreds, and none holds the content of an event.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Maximum number of characters of a refusal that an error quotes.
const REFUSAL_CHARS_MAX: usize = 1_000;
/// Length of a transaction id, in characters.
const TRANSACTION_ID_LENGTH: usize = 10;

/// A request that failed.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The configuration names no address for this instance.
    #[error("no address is configured for {0}: add it to the instance map")]
    UnknownInstance(InstanceName),
    /// An instance that sends a request to itself would wait for itself.
    #[error("{0} cannot send a request to itself")]
    Itself(InstanceName),
    /// No connection to the other instance could be established.
    #[error("cannot connect to {0}: {1}")]
    Connect(Address, std::io::Error),
    /// The connection failed before the response was complete.
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    /// The other instance's port speaks TLS.
    #[error("{0} speaks TLS, and instances speak HTTP to each other without it: name the port of an instance")]
    Tls(Address),
    /// The response is longer than [`ANSWER_BYTES_MAX`].
    #[error("the response of {0} is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong(Address),
    /// No response came within [`RESPONSE_TIMEOUT`].
    #[error("no response from {0} within {RESPONSE_TIMEOUT:?}")]
    Timeout(Address),
    /// The other instance refused the request.
    #[error("{address} answered {status}: {body}")]
    Status {
        /// The address of the instance that refused.
        address: Address,
        /// The status of the response.
        status: StatusCode,
        /// The body of the response, cut to 1000 characters.
        body: String,
    },
    /// The response is not JSON, or holds a number that cannot be represented.
    #[error("the response is invalid: {0}")]
    NotJson(#[from] JsonError),
    /// The response does not have the expected form.
    #[error("the response is invalid: {0}")]
    Json(#[from] serde_json::Error),
    /// A row in the response cannot be parsed.
    #[error("{0}")]
    Row(#[from] RowError),
    /// Every attempt failed. It is not known if the request took effect.
    #[error("gave up after {attempts} attempts in {within:?}: {last}")]
    GaveUp {
        /// Number of attempts.
        attempts: u32,
        /// Time from the first attempt to the last.
        within: Duration,
        /// The error of the last attempt.
        last: Box<HttpError>,
    },
    /// The request took effect, but this instance did not receive the rows in time.
    #[error("the request took effect, but its rows did not arrive here: {0}")]
    NotSeen(#[from] WaitError),
}

impl HttpError {
    /// Returns true if a retry may succeed.
    fn is_transient(&self) -> bool {
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

/// A client of other instances' endpoints. Cheap to clone.
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

/// A request that writes.
struct Change<'a> {
    endpoint: Endpoint,
    arguments: &'a [&'a str],
    body: Map<String, Value>,
}

impl HttpClient {
    /// Creates the client of `instance`, which connects to `addresses` and authenticates with `secret`.
    pub fn new(env: Env, instance: InstanceName, addresses: BTreeMap<InstanceName, Address>, secret: String) -> Self {
        let shared = Shared { env, instance, addresses, secret, requests: Cell::new(0) };
        HttpClient { shared: Rc::new(shared), positions: None, retry_for: RETRY_FOR }
    }

    /// Returns the client with `positions`: after a call that writes, reads on this instance see what was written.
    #[must_use]
    pub fn with_positions(&self, positions: Rc<StreamPositions>) -> Self {
        HttpClient { positions: Some(positions), ..self.clone() }
    }

    /// Returns the client with another retry time.
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
        let path = path_of(Endpoint::GetUpdates, &[stream.as_str()], Some(&transaction_id));
        let path = format!("{path}?from_token={from}&upto_token={upto}");
        let request = self.request(Endpoint::GetUpdates.method(), &path, writer)?.body(Full::default());
        let answer = self.exchange(writer, request.expect(CHECKED)).await?;
        let text = std::str::from_utf8(&answer).map_err(|error| JsonError::Syntax(error.to_string()))?;
        let body = updates::Response::deserialize(json::parse(text)?)?;
        let rows = body.updates.into_iter().map(|(token, row)| Ok((token, Row::parse(stream, row)?)));
        Ok(Updates { rows: rows.collect::<Result<_, RowError>>()?, upto: body.upto_token, limited: body.limited })
    }

    /// Sends a request that writes to `target`, and waits until the written rows have arrived here.
    async fn change(&self, target: &InstanceName, change: Change<'_>) -> Result<Map<String, Value>, HttpError> {
        let Change { endpoint, arguments, mut body } = change;
        if let Some(positions) = &self.positions {
            positions.add_to_request(&mut body);
        }
        let (number, transaction_id) = self.next_request();
        let id_in_path = endpoint.has_transaction_id_in_path().then_some(transaction_id.as_str());
        let path = path_of(endpoint, arguments, id_in_path);
        let mut request = self
            .request(endpoint.method(), &path, target)?
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json::render(&body.into()))))
            .expect(CHECKED);
        if id_in_path.is_none() {
            let id = HeaderValue::from_str(&transaction_id).expect("a transaction id is alphanumeric");
            request.headers_mut().insert(TRANSACTION_HEADER, id);
        }
        let answer = self.retry_until_known(number, target, request).await?;
        let mut answer: Map<String, Value> = serde_json::from_slice(&answer)?;
        let written = stream_positions::take_from_response(&mut answer);
        if let Some(positions) = &self.positions {
            positions.wait_for_server(target, written).await?;
        }
        Ok(answer)
    }

    /// Retries until the outcome is known or the retry time has passed.
    async fn retry_until_known(
        &self,
        number: u64,
        target: &InstanceName,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, HttpError> {
        let mut backoff = Backoff::new(&self.shared.env.seeds.child("http_retry").child(number));
        let since = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.exchange(target, request.clone()).await {
                Err(error) if error.is_transient() => error,
                known => return known,
            };
            let delay = backoff.next_delay();
            if since.elapsed() + delay >= self.retry_for {
                return Err(HttpError::GaveUp { attempts, within: since.elapsed(), last: Box::new(error) });
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Returns the number and the transaction id of a new request.
    fn next_request(&self) -> (u64, String) {
        let number = self.shared.requests.get();
        self.shared.requests.set(number + 1);
        let rng = self.shared.env.seeds.child("transaction_id").child(number).rng();
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

    /// Sends one request on a connection of its own, and returns the body of the response.
    async fn exchange(&self, target: &InstanceName, request: Request<Full<Bytes>>) -> Result<Bytes, HttpError> {
        let env = &self.shared.env;
        let address = self.address(target)?;
        let stream = env.network.connect(address).await.map_err(|error| HttpError::Connect(address.clone(), error))?;
        let stream = Plain::connected(stream);
        let exchange = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // The sender also gets the errors of the connection.
            let connection = env.tasks.spawn(tasks::HTTP_CLIENT_CONNECTION, async move { connection.await.ok() });
            let _stop = AbortOnDrop(connection);
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| body_error(address, error))?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let body = String::from_utf8_lossy(&body).chars().take(REFUSAL_CHARS_MAX).collect();
            Err(HttpError::Status { address: address.clone(), status, body })
        };
        match tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await {
            Ok(Err(HttpError::Exchange(error))) if tls_mismatch::is_cause_of(&error) => {
                Err(HttpError::Tls(address.clone()))
            }
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout(address.clone())),
        }
    }
}

/// Returns the error for a response body that could not be read.
fn body_error(address: &Address, error: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => HttpError::Exchange(*error),
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>(), "Limited has no other error");
            HttpError::TooLong(address.clone())
        }
    }
}

/// The reason why building a request cannot fail.
const CHECKED: &str = "the path is percent-encoded, and name and secret were checked at the start";

/// Returns the path of a request.
fn path_of(endpoint: Endpoint, arguments: &[&str], transaction_id: Option<&str>) -> String {
    let path = format!("{PATH_PREFIX}{}", endpoint.path(arguments));
    match transaction_id {
        Some(id) => format!("{path}/{}", encode(id)),
        None => path,
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

/// A task that is aborted when its owner is dropped.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
