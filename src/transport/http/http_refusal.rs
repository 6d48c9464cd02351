//! The error response to a request.

use std::fmt::Display;

use http::StatusCode;
use serde_json::{Value, json};

/// The refusal of a request: a status, a Matrix error code, and a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRefusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The Matrix error code, such as `M_UNRECOGNIZED`.
    pub code: &'static str,
    /// The message.
    pub error: String,
}

impl HttpRefusal {
    /// Creates a refusal.
    pub fn new(status: StatusCode, code: &'static str, error: impl Display) -> Self {
        HttpRefusal { status, code, error: error.to_string() }
    }

    /// Creates the refusal of an unknown endpoint or method.
    pub fn unrecognized(status: StatusCode) -> Self {
        HttpRefusal::new(status, "M_UNRECOGNIZED", "Unrecognized request")
    }

    /// Creates the refusal of an invalid request.
    pub fn bad_request(error: impl Display) -> Self {
        HttpRefusal::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error)
    }

    /// Creates the refusal of a body that is JSON but not of the expected form.
    pub fn bad_json(error: impl Display) -> Self {
        HttpRefusal::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", error)
    }

    /// Creates the refusal of a request that may succeed later. A retry with the same transaction id is safe.
    pub fn try_again(error: impl Display) -> Self {
        HttpRefusal::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error)
    }

    /// Returns the body of the response.
    pub fn to_json(&self) -> Value {
        json!({ "errcode": self.code, "error": self.error })
    }
}
