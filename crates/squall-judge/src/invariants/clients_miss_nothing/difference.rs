//! The first difference between an answer and the committed rows.

use squall_protocol::Token;

/// A difference between an answer and the committed rows.
pub(super) struct Difference {
    /// True if the answer lacks it, false if the answer has it wrongly.
    pub is_lacking: bool,
    pub token: Token,
    pub what: String,
}

impl Difference {
    /// Returns the difference of an answer that lacks `what`.
    pub(super) fn not_told(token: Token, what: impl Into<String>) -> Self {
        Difference { is_lacking: true, token, what: what.into() }
    }

    /// Returns the difference of an answer that has `what` and must not.
    pub(super) fn told_wrongly(token: Token, what: impl Into<String>) -> Self {
        Difference { is_lacking: false, token, what: what.into() }
    }
}
