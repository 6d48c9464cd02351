//! A request as its handler receives it, and the handler's reply.

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Endpoint, HttpRefusal};
use crate::store::RequestId;
use squall_env::LocalBoxFuture;
use squall_protocol::Token;

/// Executes the requests to every [`Endpoint`].
pub trait RequestHandler {
    /// Executes one request. The [`Router`](super::Router) runs it to its end even if the client disconnects.
    fn handle(
        &self,
        endpoint: Endpoint,
        request: EndpointRequest,
    ) -> LocalBoxFuture<'static, Result<Reply, HttpRefusal>>;
}

/// A request as its handler receives it.
#[derive(Debug, Clone, Default)]
pub struct EndpointRequest {
    /// The decoded arguments in the path, in the order of [`Endpoint::arguments`]. The router checks their number.
    pub arguments: Vec<String>,
    /// The decoded query parameters, in order.
    pub query: Vec<(String, String)>,
    /// The body; empty for `GET`.
    pub body: Map<String, Value>,
    /// The id that makes the request idempotent, if the client sent one. Requests with the same id take effect once.
    pub id: Option<RequestId>,
}

impl EndpointRequest {
    /// Deserializes the body.
    ///
    /// # Errors
    /// The body does not have the expected form.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, HttpRefusal> {
        T::deserialize(&self.body).map_err(HttpRefusal::bad_json)
    }

    /// Returns the query parameter `name` as a token.
    ///
    /// # Errors
    /// The parameter is missing or is not a token. The refusals use Synapse's words.
    pub fn token(&self, name: &str) -> Result<Token, HttpRefusal> {
        let Some((_, value)) = self.query.iter().find(|(key, _)| key == name) else {
            let error = format!("Missing required integer query parameter {name}");
            return Err(HttpRefusal::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", error));
        };
        let error = match value.trim().parse() {
            Ok(token) if token >= 0 => return Ok(Token(token)),
            Ok(_) => format!("Query parameter {name} must be a positive integer."),
            Err(_) => format!("Query parameter {name} must be an integer"),
        };
        Err(HttpRefusal::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error))
    }
}

/// The reply to a request that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The body of the response.
    pub body: Map<String, Value>,
    /// The stream that the request wrote to and the last token that it wrote, if it wrote. The client waits for it.
    pub wrote: Option<(String, Token)>,
}

impl Reply {
    /// Creates a reply to a request that wrote nothing.
    pub fn read(body: Map<String, Value>) -> Self {
        Reply { body, wrote: None }
    }

    /// Creates a reply to a request that wrote to `stream` up to `token`.
    pub fn wrote(body: Map<String, Value>, stream: &str, token: Token) -> Self {
        Reply { body, wrote: Some((stream.to_owned(), token)) }
    }
}
