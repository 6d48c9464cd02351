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

/// Names the instance that asks. Synapse has no such header; without it, what it is for is not checked.
///
/// The rows of an in-memory stream mean something only to whoever is connected to this very run of their writer. An
/// instance connects to each other one at most once at a time, and says its name first. So a run that has never heard
/// that name on a connection is not the run whose position the asker was told.
const INSTANCE_HEADER: &str = "x-squall-instance";

/// Where every endpoint's path begins.
const PATH_PREFIX: &str = "/_synapse/replication/";
/// The endpoint for missed rows.
const GET_UPDATES: &str = "get_repl_stream_updates";
