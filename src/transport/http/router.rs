//! From a request to its endpoint, and back to an answer.
//!
//! A path is `/_synapse/replication/<NAME>/<ARGUMENT>...[/<TRANSACTION ID>]`, each part percent-encoded. What is wrong
//! is said in Synapse's words where it has any.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::request_cache::RequestCache;
use super::{Endpoint, EndpointRequest, PATH_PREFIX, Refusal, StreamPositions, TRANSACTION_HEADER};
use crate::env::{Env, Observer};
use crate::protocol::json;
use crate::store::RequestId;

/// How long a body may be: some two hundred events of the greatest size, with their state.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a body may take to come.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything an instance can be asked for.
pub struct Router {
    endpoints: BTreeMap<&'static str, Rc<dyn Endpoint>>,
    secret: String,
    positions: Rc<StreamPositions>,
    requests: Rc<RequestCache>,
    observer: Rc<dyn Observer>,
}

/// A request whose endpoint is found.
struct Routed {
    endpoint: Rc<dyn Endpoint>,
    arguments: Vec<String>,
    transaction_id: Option<String>,
}

/// What to answer: a status, and a body unless there is none.
type Answer = (StatusCode, Option<Value>);

impl Router {
    /// Routes requests that bring `secret` to `endpoints`.
    pub fn new(endpoints: Vec<Rc<dyn Endpoint>>, secret: String, positions: Rc<StreamPositions>, env: Env) -> Rc<Self> {
        let endpoints = endpoints.into_iter().map(|endpoint| (endpoint.name(), endpoint)).collect();
        let observer = Rc::clone(&env.observer);
        Rc::new(Router { endpoints, secret, positions, requests: RequestCache::new(env), observer })
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let endpoint = self.name_at(request.uri().path());
        let (status, body) = match self.handle(request).await {
            Ok(answer) => answer,
            Err(refusal) => (refusal.status, Some(refusal.to_json())),
        };
        self.observer.answered(endpoint, status.as_u16());
        let body = body.map_or_else(Bytes::new, |body| json::render(&body).into());
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("status and headers are valid")
    }

    async fn handle<B>(&self, request: Request<B>) -> Result<Answer, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.method() == Method::OPTIONS {
            return Ok((StatusCode::NO_CONTENT, None));
        }
        let Routed { endpoint, arguments, transaction_id } = self.route(request.uri().path())?;
        // What may be got may also be asked about; the body is left out on the way.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        if *method != endpoint.method() {
            return Err(Refusal::unrecognized(StatusCode::METHOD_NOT_ALLOWED));
        }
        self.authorize(request.headers())?;
        let (head, body) = request.into_parts();
        let mut body = if endpoint.method() == Method::GET { Map::new() } else { read_body(body).await? };
        let asker_positions = StreamPositions::take_from_request(&mut body).map_err(Refusal::bad_json)?;
        let query = head.uri.query().unwrap_or_default();
        let transaction_id = transaction_id.or_else(|| header_text(&head.headers, &TRANSACTION_HEADER));
        let id =
            transaction_id.map(|id| RequestId { endpoint: path_of(endpoint.name(), &arguments), transaction_id: id });
        let key = id.as_ref().map(|id| format!("{} {}/{}?{query}", endpoint.method(), id.endpoint, id.transaction_id));
        let asked = EndpointRequest { arguments, query: parse_query(query), body, id };

        let is_read = endpoint.method() == Method::GET;
        let positions = Rc::clone(&self.positions);
        let execution = async move {
            if let Some(asker) = asker_positions {
                positions.wait_for_asker(&asker).await.map_err(Refusal::try_again)?;
            }
            endpoint.handle(asked).await
        };
        let reply = self.requests.outcome(key, execution).await?;
        // The positions are those of now: the answer may be an old one that is given again (Synapse #15024).
        let body = if is_read { reply.body } else { self.positions.answer(&reply) };
        Ok((StatusCode::OK, Some(body.into())))
    }

    fn route(&self, path: &str) -> Result<Routed, Refusal> {
        let unrecognized = || Refusal::unrecognized(StatusCode::NOT_FOUND);
        let mut parts = path.strip_prefix(PATH_PREFIX).ok_or_else(unrecognized)?.split('/');
        let name = parts.next().unwrap_or_default();
        let endpoint = self.endpoints.get(name).ok_or_else(unrecognized)?;
        let decode = |part: &str| percent_decode_str(part).decode_utf8().map(|part| part.into_owned());
        let mut arguments: Vec<String> = parts.map(decode).collect::<Result<_, _>>().map_err(Refusal::bad_request)?;
        let transaction_id = if endpoint.has_transaction_id() { arguments.pop() } else { None };
        let is_complete = arguments.len() == endpoint.arguments().len()
            && transaction_id.is_some() == endpoint.has_transaction_id()
            && arguments.iter().chain(&transaction_id).all(|part| !part.is_empty());
        if !is_complete {
            return Err(unrecognized());
        }
        Ok(Routed { endpoint: Rc::clone(endpoint), arguments, transaction_id })
    }

    /// The name of the endpoint at `path`, empty if there is none.
    fn name_at(&self, path: &str) -> &'static str {
        let name = path.strip_prefix(PATH_PREFIX).and_then(|rest| rest.split('/').next());
        name.and_then(|name| self.endpoints.get(name)).map_or("", |endpoint| endpoint.name())
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            let error = "the shared secret is missing";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", error));
        };
        // In a time that does not tell how much of a wrong one is right.
        let is_right = |given: &[u8]| bool::from(given.ct_eq(self.secret.as_bytes()));
        if !given.as_bytes().strip_prefix(b"Bearer ").is_some_and(is_right) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "that is not the shared secret"));
        }
        Ok(())
    }
}

/// The path of an endpoint without prefix and transaction id.
pub(super) fn path_of(name: &str, arguments: &[String]) -> String {
    arguments.iter().fold(name.to_owned(), |path, argument| format!("{path}/{}", super::encode(argument)))
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Reads a body that has to be a JSON object.
async fn read_body<B>(body: B) -> Result<Map<String, Value>, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_long = || {
        let error = format!("the body is longer than {BODY_BYTES_MAX} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error)
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long()); // whoever says so beforehand need not send it
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| {
        let error = format!("the body did not come within {BODY_TIMEOUT:?}");
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", error)
    })?;
    let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
        Ok(_) => too_long(),
        Err(error) => Refusal::bad_request(error),
    })?;
    let body = body.to_bytes();
    match std::str::from_utf8(&body).ok().map(json::parse) {
        Some(Ok(Value::Object(body))) => Ok(body),
        Some(Ok(_)) => Err(Refusal::bad_json("Content must be a JSON object.")),
        Some(Err(_)) | None => Err(Refusal::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", "Content not JSON.")),
    }
}

/// The parameters of a query: `+` is a space, and what has no `=` is none.
fn parse_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}
