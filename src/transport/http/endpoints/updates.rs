//! `GET get_repl_stream_updates/<stream>/<transaction id>?from_token=..&upto_token=..`: reads the rows of a stream that
//! the instance writes. Returns `{"updates":[[token,row],...],"upto_token":..,"limited":..}`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use squall_protocol::Token;

/// The body of a response.
#[derive(Debug, Serialize, Deserialize)]
pub struct Response {
    /// The rows in ascending order of their tokens.
    pub updates: Vec<(Token, Value)>,
    /// The token up to which these are all rows.
    pub upto_token: Token,
    /// True if rows are left between `upto_token` and the requested token.
    pub limited: bool,
}
