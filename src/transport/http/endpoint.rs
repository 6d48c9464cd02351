//! What an endpoint is.

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Refusal;
use crate::env::LocalBoxFuture;
use crate::protocol::Token;
use crate::store::RequestId;

/// One thing that other instances can ask for.
pub trait Endpoint {
    /// Its name, the first part of its path.
    fn name(&self) -> &'static str;
    /// Its method.
    fn method(&self) -> Method {
        Method::POST
    }
    /// What the parts of its path after the name are, besides the transaction id.
    fn arguments(&self) -> &'static [&'static str];
    /// Whether the last part of its path is a transaction id. Otherwise a header may bring one, of which Synapse does
    /// not know.
    fn has_transaction_id(&self) -> bool;
    /// Does what is asked. It runs to its end even if the asker goes away.
    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>>;
}

/// A request as its endpoint gets to see it.
#[derive(Debug, Clone, Default)]
pub struct EndpointRequest {
    /// The parts of the path, decoded, in the order of [`Endpoint::arguments`].
    pub arguments: Vec<String>,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body. Empty for `GET`.
    pub body: Map<String, Value>,
    /// What makes several requests one. It takes effect once, however often it comes.
    pub id: Option<RequestId>,
}

impl EndpointRequest {
    /// The body in its expected shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        T::deserialize(&self.body).map_err(Refusal::bad_json)
    }

    /// A token in the query, with Synapse's words for what is wrong with it.
    pub fn token(&self, name: &str) -> Result<Token, Refusal> {
        let refuse = |code, error| Err(Refusal::new(StatusCode::BAD_REQUEST, code, error));
        let Some((_, value)) = self.query.iter().find(|(key, _)| key == name) else {
            return refuse("M_MISSING_PARAM", format!("Missing required integer query parameter {name}"));
        };
        match value.trim().parse() {
            Ok(token) if token >= 0 => Ok(Token(token)),
            Ok(_) => refuse("M_INVALID_PARAM", format!("Query parameter {name} must be a positive integer.")),
            Err(_) => refuse("M_INVALID_PARAM", format!("Query parameter {name} must be an integer")),
        }
    }
}

/// The answer to a request that was met.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The answer's body.
    pub body: Map<String, Value>,
    /// What was written: the stream, and the last token of it. The asker waits for it.
    pub wrote: Option<(String, Token)>,
}

impl Reply {
    /// An answer that brought about nothing.
    pub fn read(body: Map<String, Value>) -> Self {
        Reply { body, wrote: None }
    }

    /// An answer to whoever had something written to `stream`, up to `token`.
    pub fn wrote(body: Map<String, Value>, stream: &str, token: Token) -> Self {
        Reply { body, wrote: Some((stream.to_owned(), token)) }
    }
}
