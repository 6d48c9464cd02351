//! The findings that an operator of unmodified Synapse is told, on the recordings in `tests/data/live`.

use std::collections::BTreeMap;

use squall_judge::audit::{Class, Report};

use crate::recording;

fn report(name: &str) -> Report {
    let report = Report::of(recording::capture(&format!("tests/data/live/{name}.jsonl.gz")), None);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    report
}

/// Returns the number of findings of each kind that are no habit.
fn losses_and_loads(report: &Report) -> BTreeMap<String, usize> {
    let groups = report.groups_by_class().into_iter().filter(|((class, _), _)| *class != Class::Habit);
    groups.map(|((class, fingerprint), group)| (format!("{class} {fingerprint}"), group.count)).collect()
}

/// Returns the tokens of each writer for which no row was sent.
fn unsent(report: &Report) -> Vec<String> {
    let mut unsent = Vec::new();
    for (stream, writers) in &report.tally.streams {
        for (writer, counts) in writers.iter().filter(|(_, counts)| counts.unsent > 0) {
            assert_eq!(counts.unsent, counts.last_unsent.len() as u64);
            let tokens: Vec<_> = counts.last_unsent.iter().map(|token| token.0).collect();
            unsent.push(format!("{stream} {writer} {tokens:?}"));
        }
    }
    unsent
}

#[test]
fn a_healthy_deployment_has_nothing_but_habits_and_no_token_without_a_row() {
    let report = report("healthy");
    assert_eq!(losses_and_loads(&report), BTreeMap::new());
    assert_eq!(unsent(&report), Vec::<String>::new());
    let mut habits: BTreeMap<_, usize> = BTreeMap::new();
    for finding in &report.findings {
        *habits.entry(format!("{}/{}", finding.violation.rule(), finding.violation.kind())).or_default() += 1;
    }
    let kinds: Vec<_> = habits.keys().map(String::as_str).collect();
    // The rooms are new, so the state that comes ahead of its events is a habit.
    assert_eq!(kinds, ["announcements_are_own/of_others", "state_with_its_event/too_early", "tokens_ascend/repeated"]);
}

#[test]
fn a_restart_has_nothing_but_the_syncs_that_were_not_cleared() {
    let report = report("restart");
    assert_eq!(losses_and_loads(&report), BTreeMap::from([("loss syncs_cleared/not_cleared".to_owned(), 1)]));
    // `generic1` wrote these before it was connected. Several writers skip them, and they are told once.
    assert_eq!(unsent(&report), ["caches generic1 [2610, 2611]"]);
    let skipped = report.findings.iter().filter(|finding| finding.violation.kind() == "skipped");
    let texts: Vec<_> = skipped.map(|finding| finding.violation.to_string()).collect();
    let [text] = &texts[..] else { panic!("{texts:?}") };
    assert!(text.contains("generic1") && text.contains("followers now fetch the rows"), "{text}");
}

#[test]
fn the_rows_that_a_reset_connection_lost_are_counted() {
    let report = report("publisher_reset");
    let lost = [
        "account_data writer1 [248, 250, 252]",
        "presence writer1 [272]",
        "receipts writer1 [131, 132, 133]",
        "to_device writer1 [62, 65, 68]",
    ];
    assert_eq!(unsent(&report), lost);
    assert_eq!(losses_and_loads(&report), BTreeMap::new(), "a number, and no finding");
}

#[test]
fn batches_inside_each_other_are_a_loss_and_a_position_at_a_start_is_none() {
    let report = report("batches_interleaved");
    assert_eq!(losses_and_loads(&report), BTreeMap::from([("loss batches_whole/events/interleaved".to_owned(), 4)]));
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.violation.kind()).collect();
    assert!(kinds.contains(&"went_back"), "the query for caches has no upper bound");
}

#[test]
fn a_process_that_reconnects_in_a_loop_is_a_load() {
    let report = report("rolling_upgrade");
    // One instance connects more often than the rule allows to one, and goes on.
    assert_eq!(losses_and_loads(&report), BTreeMap::from([("load replicates_bounded/storm".to_owned(), 2)]));
}
