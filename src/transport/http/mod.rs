//! Requests from instance to instance over HTTP/1.1.
//!
//! So far one endpoint: rows that only their writer has, at Synapse's path
//! `GET /_synapse/replication/get_repl_stream_updates/<stream>/<transaction id>?from_token=..&upto_token=..`, with the
//! deployment's shared secret as bearer token. The answer is
//! `{"updates":[[token,row],...],"upto_token":..,"limited":..}`.

mod client;
mod server;

pub use client::{HttpClient, HttpError, RESPONSE_TIMEOUT};
pub use server::serve_requests;

/// Where every endpoint's path begins.
const PATH_PREFIX: &str = "/_synapse/replication/";
/// The endpoint for missed rows.
const GET_UPDATES: &str = "get_repl_stream_updates";
