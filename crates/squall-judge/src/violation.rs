//! The parts of a violation that every invariant shares: its fingerprint, and the lists in its text, which the audit's
//! rules share.
//!
//! A violation is data, declared beside its invariant. Its fingerprint names the invariant, the stream and the kind, and
//! nothing that differs from seed to seed. Shrinking keeps a fingerprint, and the corpus is keyed by it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// The most things that a sentence names before it counts the rest.
pub(super) const LISTED_MAX: usize = 8;

/// Returns `invariant/stream/kind`, or `invariant/kind` without a stream.
///
/// The kind and the stream are those of the violation's JSON, so that the two always agree. `names_stream` is false for
/// an invariant whose violations have a stream that says nothing of the defect.
///
/// # Panics
/// If the violation's JSON has no `kind`: its enum needs `#[serde(tag = "kind", rename_all = "snake_case")]`.
pub(super) fn fingerprint(invariant: &str, violation: &impl Serialize, names_stream: bool) -> String {
    let json = serde_json::to_value(violation).expect("a violation is plain data");
    let kind = json.get("kind").and_then(Value::as_str).expect("a violation is tagged with its `kind`");
    match json.get("stream").and_then(Value::as_str).filter(|_| names_stream) {
        Some(stream) => format!("{invariant}/{stream}/{kind}"),
        None => format!("{invariant}/{kind}"),
    }
}

/// Returns the kind of the violation in `verdict`, or `none`.
#[cfg(test)]
pub(super) fn kind<V: Serialize>(verdict: &Result<(), V>) -> String {
    let Err(violation) = verdict else { return "none".to_owned() };
    let fingerprint = fingerprint("", violation, false);
    fingerprint.trim_start_matches('/').to_owned()
}

/// Returns `1, 2, 3`, cut to a length that a reader wants to see.
pub(super) fn list<T: fmt::Display>(things: &[T]) -> String {
    list_first(&things[..things.len().min(LISTED_MAX)], things.len() as u64)
}

/// Returns the first of `total` things, and the number of the rest: `76, 77 and 3 more`.
pub(super) fn list_first<T: fmt::Display>(first: &[T], total: u64) -> String {
    let listed: Vec<String> = first.iter().map(T::to_string).collect();
    let more = total - first.len() as u64;
    if more == 0 { listed.join(", ") } else { format!("{} and {more} more", listed.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Made {
        WentBack { stream: &'static str },
        Overlapping,
    }

    #[test]
    fn a_fingerprint_names_the_stream_where_there_is_one_that_matters() {
        let went_back = Made::WentBack { stream: "events" };
        assert_eq!(fingerprint("positions", &went_back, true), "positions/events/went_back");
        assert_eq!(fingerprint("positions", &went_back, false), "positions/went_back");
        assert_eq!(fingerprint("positions", &Made::Overlapping, true), "positions/overlapping");
        assert_eq!(kind(&Err(Made::Overlapping)), "overlapping");
        assert_eq!(kind(&Ok::<(), Made>(())), "none");
    }

    #[test]
    fn a_list_stays_short() {
        assert_eq!(list(&[1, 2, 3]), "1, 2, 3");
        let many: Vec<i32> = (17..39).collect();
        assert_eq!(list(&many), "17, 18, 19, 20, 21, 22, 23, 24 and 14 more");
        assert_eq!(list_first(&[76, 77], 5), "76, 77 and 3 more");
    }
}
