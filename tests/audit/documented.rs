//! The documents for operators: every kind of finding has an entry in docs/findings.md.

use std::collections::BTreeSet;

use squall_judge::audit::rules;

const FINDINGS: &str = include_str!("../../docs/findings.md");

/// Returns the kinds that have an entry, and the text of each entry.
fn entries() -> Vec<(&'static str, &'static str)> {
    let mut entries = Vec::new();
    for entry in FINDINGS.split("\n## ").skip(1) {
        let (heading, text) = entry.split_once('\n').expect("an entry has a text");
        entries.push((heading.trim_matches('`'), text));
    }
    entries
}

#[test]
fn every_kind_of_finding_has_an_entry_and_every_entry_has_a_kind() {
    let kinds: BTreeSet<String> = rules::kinds().collect();
    let documented: Vec<String> = entries().iter().map(|(kind, _)| (*kind).to_owned()).collect();
    let without_entry: Vec<_> = kinds.iter().filter(|kind| !documented.contains(kind)).collect();
    let without_kind: Vec<_> = documented.iter().filter(|kind| !kinds.contains(*kind)).collect();
    assert!(
        without_entry.is_empty() && without_kind.is_empty(),
        "no entry: {without_entry:?}; no kind: {without_kind:?}"
    );
    assert!(documented.windows(2).all(|pair| pair[0] < pair[1]), "the entries are in order, and none comes twice");
}

/// The kinds whose findings are habits in some circumstances.
const HABITS: [&str; 6] = [
    "announcements_are_own/of_others",
    "positions_meet/skipped",
    "replicate_answered_once/twice",
    "state_with_its_event/too_early",
    "tokens_ascend/repeated",
    "tokens_ascend/went_back",
];

#[test]
fn an_entry_of_a_kind_that_may_be_a_habit_says_when_it_is_one_and_what_else_it_may_be() {
    for (kind, text) in entries() {
        let says_both = text.contains("*habit*") && (text.contains("*load*") || text.contains("*loss*"));
        assert_eq!(says_both, HABITS.contains(&kind), "{kind}");
    }
}

#[test]
fn every_entry_says_what_it_costs_and_what_to_do() {
    for (kind, text) in entries() {
        let meaning = text.trim_start().split("\n\n").next().unwrap_or_default();
        assert!(!meaning.is_empty() && !meaning.starts_with('*'), "{kind} does not say what it means");
        for part in ["*Cost:* ", "*Do:* "] {
            assert_eq!(text.matches(part).count(), 1, "{kind}: {part}");
        }
    }
}
