//! Requests between instances over HTTP/1.1, with Synapse's paths and JSON bodies.
//!
//! The client is [`HttpClient`]. On the server, [`serve_requests`] hands each request to the [`Router`], which
//!
//! 1. finds the [`Endpoint`] in the table of [`endpoints`],
//! 2. checks the deployment's shared secret,
//! 3. waits until this instance has received the rows that the client had written ([`StreamPositions`]),
//! 4. executes requests with the same transaction id once ([`request_cache`]), by the instance's [`RequestHandler`].

mod client;
pub mod endpoints;
pub mod event_id;
mod exchange;
mod http_refusal;
pub mod request_cache;
mod router;
mod server;
pub mod stream_positions;
mod write_timeout;

use http::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

pub use client::{ANSWER_BYTES_MAX, HttpClient, HttpError, RESPONSE_TIMEOUT, RETRY_FOR};
pub use endpoints::Endpoint;
pub use exchange::{EndpointRequest, Reply, RequestHandler};
pub use http_refusal::HttpRefusal;
pub use router::{BODY_BYTES_MAX, BODY_TIMEOUT, Router};
#[cfg(feature = "serve")]
pub(crate) use server::TOO_MANY_CONNECTIONS;
#[cfg(feature = "serve")]
pub(crate) use server::serve_connection;
pub use server::{HEAD_BYTES_MAX, HEAD_TIMEOUT, WRITE_TIMEOUT, serve_requests};
pub use stream_positions::StreamPositions;

/// The header with the transaction id of a request whose path has none. Synapse has no such header, and ignores it.
const TRANSACTION_HEADER: HeaderName = HeaderName::from_static("x-squall-transaction");

/// The beginning of every endpoint's path.
const PATH_PREFIX: &str = "/_synapse/replication/";

/// The characters that are percent-encoded in paths: all but those that RFC 3986 never reserves, as in Synapse.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes one part of a path.
fn encode(part: &str) -> PercentEncode<'_> {
    utf8_percent_encode(part, ENCODED)
}
