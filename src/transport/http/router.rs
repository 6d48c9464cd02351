//! Routes a request to its endpoint and turns the reply into a response.
//!
//! A path is `/_synapse/replication/<NAME>/<ARGUMENT>...[/<TRANSACTION ID>]`, each part percent-encoded. Refusals use
//! Synapse's words where Synapse has any.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use xxhash_rust::xxh3::xxh3_64;

use super::request_cache::RequestCache;
use super::{Endpoint, EndpointRequest, HttpRefusal, PATH_PREFIX, RequestHandler, StreamPositions, TRANSACTION_HEADER};
use crate::limits::Limits;
use crate::observer::{Env, Observer};
use crate::store::RequestId;
use squall_protocol::json;

/// Maximum length of a request body, in bytes: room for about two hundred events of the maximum size with their state.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time within which a request body must arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The HTTP service of one instance.
pub struct Router {
    handler: Rc<dyn RequestHandler>,
    secret: String,
    positions: Rc<StreamPositions>,
    requests: Rc<RequestCache>,
    observer: Rc<dyn Observer>,
}

/// The parts of a request's path.
struct Route {
    endpoint: Endpoint,
    arguments: Vec<String>,
    transaction_id: Option<String>,
}

/// The status of a response and its body, if it has one.
type Answer = (StatusCode, Option<Value>);

impl Router {
    /// Creates a router that hands requests with the right `secret` to `handler`, and keeps its replies within
    /// `limits`.
    pub fn new(
        handler: Rc<dyn RequestHandler>,
        secret: String,
        positions: Rc<StreamPositions>,
        limits: Limits,
        env: Env,
    ) -> Rc<Self> {
        let observer = Rc::clone(&env.observer);
        Rc::new(Router { handler, secret, positions, requests: RequestCache::new(limits, env), observer })
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let endpoint = endpoint_at(request.uri().path()).map_or("", Endpoint::name);
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

    async fn handle<B>(&self, request: Request<B>) -> Result<Answer, HttpRefusal>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.method() == Method::OPTIONS {
            return Ok((StatusCode::NO_CONTENT, None));
        }
        let Route { endpoint, arguments, transaction_id } = parse_path(request.uri().path())?;
        // HEAD is allowed where GET is. hyper leaves the body out of the response.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        if *method != endpoint.method() {
            return Err(HttpRefusal::unrecognized(StatusCode::METHOD_NOT_ALLOWED));
        }
        self.authorize(request.headers())?;
        let (head, body) = request.into_parts();
        let (mut body, digest) = match endpoint.method() {
            Method::GET => (Map::new(), 0),
            _ => read_body(body).await?,
        };
        let client_positions = StreamPositions::take_from_request(&mut body).map_err(HttpRefusal::bad_json)?;
        let query = head.uri.query().unwrap_or_default();
        let transaction_id = transaction_id.or_else(|| header_text(&head.headers, &TRANSACTION_HEADER));
        let path = endpoint.path(&arguments);
        // Two clients may draw the same transaction id. A request that is sent again has the same body too.
        let id = transaction_id.map(|id| RequestId { endpoint: path, transaction_id: format!("{id}.{digest:016x}") });
        let key = id.as_ref().map(|id| format!("{} {}/{}?{query}", endpoint.method(), id.endpoint, id.transaction_id));
        let request = EndpointRequest { arguments, query: parse_query(query), body, id };

        let is_read = endpoint.method() == Method::GET;
        let positions = Rc::clone(&self.positions);
        let handler = Rc::clone(&self.handler);
        let execution = async move {
            if let Some(client) = client_positions {
                positions.wait_for_client(&client).await.map_err(HttpRefusal::try_again)?;
            }
            handler.handle(endpoint, request).await
        };
        let reply = self.requests.outcome(key, execution).await?;
        // The positions are the current ones, even if the reply is a cached one (Synapse #15024).
        let body = if is_read { reply.body } else { self.positions.response(&reply) };
        Ok((StatusCode::OK, Some(body.into())))
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), HttpRefusal> {
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            let error = "the shared secret is missing";
            return Err(HttpRefusal::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", error));
        };
        // In constant time, so that the time does not reveal how much of a wrong secret is right.
        let is_right = |given: &[u8]| bool::from(given.ct_eq(self.secret.as_bytes()));
        if !given.as_bytes().strip_prefix(b"Bearer ").is_some_and(is_right) {
            return Err(HttpRefusal::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "that is not the shared secret"));
        }
        Ok(())
    }
}

/// Returns the endpoint that a path names, if it names one.
fn endpoint_at(path: &str) -> Option<Endpoint> {
    let name = path.strip_prefix(PATH_PREFIX)?.split('/').next()?;
    Endpoint::from_name(name)
}

/// Splits a path into its endpoint, its decoded arguments and its transaction id.
fn parse_path(path: &str) -> Result<Route, HttpRefusal> {
    let unrecognized = || HttpRefusal::unrecognized(StatusCode::NOT_FOUND);
    let endpoint = endpoint_at(path).ok_or_else(unrecognized)?;
    let parts = path[PATH_PREFIX.len()..].split('/').skip(1);
    let decode = |part: &str| percent_decode_str(part).decode_utf8().map(|part| part.into_owned());
    let mut arguments: Vec<String> = parts.map(decode).collect::<Result<_, _>>().map_err(HttpRefusal::bad_request)?;
    let has_transaction_id = endpoint.has_transaction_id_in_path();
    let transaction_id = if has_transaction_id { arguments.pop() } else { None };
    let is_complete = arguments.len() == endpoint.arguments().len()
        && transaction_id.is_some() == has_transaction_id
        && arguments.iter().chain(&transaction_id).all(|part| !part.is_empty());
    if !is_complete {
        return Err(unrecognized());
    }
    Ok(Route { endpoint, arguments, transaction_id })
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Reads a body, which must be a JSON object. Returns a hash of its bytes too, which is the same on every machine.
async fn read_body<B>(body: B) -> Result<(Map<String, Value>, u64), HttpRefusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_long = || {
        let error = format!("the body is longer than {BODY_BYTES_MAX} bytes");
        HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error)
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long()); // the Content-Length is too large: refuse before the body arrives
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| {
        let error = format!("the body did not arrive within {BODY_TIMEOUT:?}");
        HttpRefusal::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", error)
    })?;
    let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
        Ok(_) => too_long(),
        Err(error) => HttpRefusal::bad_request(error),
    })?;
    let body = body.to_bytes();
    match std::str::from_utf8(&body).ok().map(json::parse) {
        Some(Ok(Value::Object(object))) => Ok((object, xxh3_64(&body))),
        Some(Ok(_)) => Err(HttpRefusal::bad_json("Content must be a JSON object.")),
        Some(Err(_)) | None => Err(HttpRefusal::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", "Content not JSON.")),
    }
}

/// Parses a query. A `+` is a space; a part without `=` is ignored.
fn parse_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_body_of_more_bytes_than_the_limit_is_refused_for_its_length() {
        for (bytes, status) in
            [(BODY_BYTES_MAX, StatusCode::BAD_REQUEST), (BODY_BYTES_MAX + 1, StatusCode::PAYLOAD_TOO_LARGE)]
        {
            let body = Full::new(Bytes::from(vec![b' '; bytes]));
            assert_eq!(read_body(body).await.unwrap_err().status, status, "{bytes} bytes");
        }
    }
}
