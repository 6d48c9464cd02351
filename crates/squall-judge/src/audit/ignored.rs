//! Kinds of findings that the operator leaves out.

use thiserror::Error;

use super::rules::{self, Violation};
use super::streams;

/// A kind that the operator leaves out: the beginning of a fingerprint, with or without the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredKind(String);

/// A text that is the beginning of no finding's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "there is no finding {text:?}. Write the beginning of RULE/KIND or RULE/STREAM/KIND, one of these with or without a \
     stream: {}",
    rules::kinds().collect::<Vec<_>>().join(", ")
)]
pub struct UnknownKind {
    text: String,
}

impl IgnoredKind {
    /// Parses the beginning of a fingerprint.
    ///
    /// # Errors
    /// No finding has such a fingerprint.
    pub fn parse(text: &str) -> Result<Self, UnknownKind> {
        if text.is_empty() || !is_known(text) {
            return Err(UnknownKind { text: text.to_owned() });
        }
        Ok(IgnoredKind(text.to_owned()))
    }

    /// Returns true if the violation is of this kind.
    pub(super) fn contains(&self, violation: &Violation) -> bool {
        let without_stream = format!("{}/{}", violation.rule(), violation.kind());
        without_stream.starts_with(&self.0) || violation.fingerprint().starts_with(&self.0)
    }
}

/// Returns true if some fingerprint begins with `text`.
fn is_known(text: &str) -> bool {
    if rules::kinds().any(|kind| kind.starts_with(text)) {
        return true;
    }
    // The stream may be one that is not known here, but then the kind stands behind it.
    let mut parts = text.splitn(3, '/');
    let rule = parts.next().unwrap_or_default();
    let stream = parts.next().unwrap_or_default();
    match parts.next() {
        Some(kind) => rules::kinds().any(|known| known.starts_with(&format!("{rule}/{kind}"))),
        None => rules::NAMES.contains(&rule) && streams::current().any(|known| known.starts_with(stream)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::origin::Origin;
    use crate::audit::rules::tokens_ascend;
    use squall_protocol::Token;

    fn repeated(stream: &str) -> Violation {
        let origin = Origin { stream: stream.into(), writer: "a".into() };
        tokens_ascend::Violation::Repeated { origin, token: Token(5), last: Token(6) }.into()
    }

    #[test]
    fn a_kind_is_the_beginning_of_a_fingerprint_with_or_without_the_stream() {
        let of_all = ["tokens", "tokens_ascend", "tokens_ascend/", "tokens_ascend/repeated"];
        let of_caches = ["tokens_ascend/caches", "tokens_ascend/caches/", "tokens_ascend/caches/repeated"];
        for text in of_all {
            let kind = IgnoredKind::parse(text).unwrap();
            assert!(kind.contains(&repeated("caches")) && kind.contains(&repeated("events")), "{text}");
        }
        for text in of_caches {
            let kind = IgnoredKind::parse(text).unwrap();
            assert!(kind.contains(&repeated("caches")) && !kind.contains(&repeated("events")), "{text}");
        }
        for text in ["tokens_ascend/behind", "tokens_ascend/caches/behind", "one_writer", "tokens_ascend/new/repeated"]
        {
            assert!(!IgnoredKind::parse(text).unwrap().contains(&repeated("caches")), "{text}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_a_list_of_the_kinds() {
        for text in ["", "nonsense", "tokens_ascend/nonsense", "tokens_ascend/caches/nonsense", "caches", "/repeated"] {
            let error = IgnoredKind::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("tokens_ascend/repeated"), "{error}");
        }
    }
}
