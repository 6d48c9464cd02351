//! What is answered to a request that cannot be met.

use std::fmt::Display;

use http::StatusCode;
use serde_json::{Value, json};

/// A status, Matrix's code for it, and what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// One of Matrix's codes, such as `M_UNRECOGNIZED`.
    pub code: &'static str,
    /// What was wrong, for a human.
    pub error: String,
}

impl Refusal {
    /// A refusal in any words.
    pub fn new(status: StatusCode, code: &'static str, error: impl Display) -> Self {
        Refusal { status, code, error: error.to_string() }
    }

    /// There is no such endpoint, or none of that method.
    pub fn unrecognized(status: StatusCode) -> Self {
        Refusal::new(status, "M_UNRECOGNIZED", "Unrecognized request")
    }

    /// The asker could have known better.
    pub fn bad_request(error: impl Display) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error)
    }

    /// The body is JSON, but not what was expected.
    pub fn bad_json(error: impl Display) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", error)
    }

    /// It may work the next time, and asking again with the same transaction id does no harm.
    pub fn try_again(error: impl Display) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error)
    }

    /// The answer's body.
    pub fn to_json(&self) -> Value {
        json!({ "errcode": self.code, "error": self.error })
    }
}
