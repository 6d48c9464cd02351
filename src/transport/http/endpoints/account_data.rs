//! `POST add_user_account_data/<user>/<type>` and `POST add_room_account_data/<user>/<room>/<type>`: set account data of
//! a user, globally or for a room. Both take `{"content":{..}}` and return `{"max_stream_id":..}`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use squall_protocol::Token;

/// The body of a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Body {
    /// The account data.
    pub content: Map<String, Value>,
}

/// The body of a response.
#[derive(Debug, Serialize, Deserialize)]
pub struct Response {
    /// The token of the row that was written.
    pub max_stream_id: Token,
}
