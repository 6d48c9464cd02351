//! Requests from instance to instance over HTTP/1.1, at Synapse's paths and in its JSON shapes.
//!
//! A request goes through [`serve_requests`] to the [`Router`], which finds its [`Endpoint`], checks the deployment's
//! shared secret, waits until this instance has seen what the asker had written ([`StreamPositions`]), and executes what
//! several requests ask as one at most once ([`request_cache`]). There is one file for each endpoint. The asking end is
//! [`HttpClient`].

mod client;
mod endpoint;
pub mod endpoints;
pub mod event_id;
mod impatient;
mod refusal;
pub mod request_cache;
mod router;
mod server;
pub mod stream_positions;

use http::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

pub use client::{ANSWER_BYTES_MAX, HttpClient, HttpError, RESPONSE_TIMEOUT, RETRY_FOR, Sent};
pub use endpoint::{Endpoint, EndpointRequest, Reply};
pub use refusal::Refusal;
pub use router::{BODY_BYTES_MAX, BODY_TIMEOUT, Router};
pub use server::{CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, WRITE_TIMEOUT, serve_requests};
pub use stream_positions::StreamPositions;

/// Carries the transaction id of requests whose path in Synapse has none. Synapse has no such header, and ignores it.
const TRANSACTION_HEADER: HeaderName = HeaderName::from_static("x-squall-transaction");

/// Where every endpoint's path begins.
const PATH_PREFIX: &str = "/_synapse/replication/";

/// What is encoded in paths: everything but what RFC 3986 never reserves, as Synapse does.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One part of a path.
fn encode(part: &str) -> PercentEncode<'_> {
    utf8_percent_encode(part, ENCODED)
}
