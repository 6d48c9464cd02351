//! The names of failures: an invariant's name, or the name of another way in which a run fails.
//!
//! Patches, entries of the corpus and command lines name failures. Some were written when an invariant had another name;
//! [`current_name`] is the only place that knows the old names.

use strum::IntoEnumIterator;

use super::verdict::Conclusion;
use squall_judge::invariants;

/// The old name of each renamed invariant, and its name today.
const RENAMED: [(&str, &str); 2] =
    [("causes_bounded", "amplification_bounded"), ("strangers_isolated", "unknown_rows_isolated")];

/// Returns today's name of a failure. A name that is not an old one is returned as it is.
pub fn current_name(name: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, current)| current)
}

/// Returns a fingerprint with today's name of its failure: the part before the first `/`.
pub fn current_fingerprint(fingerprint: &str) -> String {
    match fingerprint.split_once('/') {
        Some((name, rest)) => format!("{}/{rest}", current_name(name)),
        None => current_name(fingerprint).to_owned(),
    }
}

/// Returns the old names of a failure.
pub fn old_names(name: &str) -> impl Iterator<Item = &'static str> {
    RENAMED.iter().filter(move |(_, current)| *current == name).map(|(old, _)| *old)
}

/// Returns today's names: every invariant's, then every other way in which a run fails.
pub fn names() -> impl Iterator<Item = &'static str> {
    let conclusions =
        Conclusion::iter().filter(|conclusion| !matches!(conclusion, Conclusion::Passed | Conclusion::Violated));
    invariants::NAMES.iter().copied().chain(conclusions.map(Conclusion::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_means_an_invariant_of_today() {
        for (old, current) in RENAMED {
            assert_eq!(current_name(old), current);
            assert!(names().any(|name| name == current), "{current}");
            assert!(names().all(|name| name != old), "{old} is a name of today");
            assert_eq!(old_names(current).collect::<Vec<_>>(), [old]);
        }
    }

    #[test]
    fn a_name_of_today_stays_as_it_is() {
        for name in names() {
            assert_eq!(current_name(name), name);
        }
    }

    #[test]
    fn an_old_fingerprint_means_the_same_failure_of_the_invariant_of_today() {
        assert_eq!(current_fingerprint("causes_bounded/too_many"), "amplification_bounded/too_many");
        assert_eq!(current_fingerprint("no_missed_rows/events/missed"), "no_missed_rows/events/missed");
        assert_eq!(current_fingerprint("strangers_isolated"), "unknown_rows_isolated");
        assert_eq!(current_fingerprint("panicked/a/b"), "panicked/a/b");
    }

    #[test]
    fn passed_and_violated_are_not_the_name_of_a_failure() {
        assert!(names().all(|name| name != "passed" && name != "violated"));
        assert!(names().any(|name| name == "stuck"));
    }
}
