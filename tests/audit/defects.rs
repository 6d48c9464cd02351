//! Defects of real Synapse that cost rows or load, in the recordings in `tests/data/live`.

use squall_judge::audit::rules::{positions_precede_rows, replicates_bounded};
use squall_judge::audit::{Class, Finding, Report, Suspicion, Violation};
use squall_judge::observation::SimTime;

use crate::recording::{self, OLDER_VERSION, ROWS_LOST, UNKNOWN_STREAM};

/// Returns the findings of one rule in a recording.
fn findings_of(path: &str, rule: &str) -> Vec<Finding> {
    let report = Report::of(recording::capture(path), None);
    assert_eq!((report.errors.len(), report.tally.payloads), (0, report.tally.parsed));
    report.findings.into_iter().filter(|finding| finding.violation.rule() == rule).collect()
}

/// Returns the time of a line of a recording.
fn at(path: &str, line: u64) -> SimTime {
    let recorded = recording::capture(path).map(Result::unwrap).find(|recorded| recorded.line == line);
    recorded.and_then(|recorded| recorded.at).unwrap()
}

/// In the whole recording the clients of `generic1` missed 92 of 860 messages, after 6 of 16 reconnects. The first reconnect
/// here cost them the rows 6909 to 6925 of persister2, and the third one some more.
#[test]
fn the_process_that_lost_rows_is_named_with_the_rows() {
    let found = findings_of(ROWS_LOST, "positions_precede_rows");
    let lost = found.iter().map(|finding| {
        assert_eq!(finding.violation.class(), Class::Loss);
        let Violation::PositionsPrecedeRows(positions_precede_rows::Violation::RowsLost {
            origin,
            asked_by,
            row,
            from,
            upto,
            ..
        }) = &finding.violation
        else {
            panic!("{finding:?}")
        };
        assert_eq!((origin.to_string().as_str(), asked_by.as_str()), ("events of persister2", "generic1"));
        (from.0, upto.0, row.0)
    });
    // It lost these or fewer. The recording begins with row 6914; after the second reconnect, 6987 was the first row.
    assert_eq!(lost.collect::<Vec<_>>(), [(6_914, 6_929, 6_931), (6_977, 7_044, 7_045)]);
    let first = found[0].violation.to_string();
    assert!(first.starts_with("events of persister2: generic1 may have lost its rows from "), "{first}");
}

/// Returns the evidence of the first storm in a recording, and its time since `began`.
fn first_storm(path: &str, began: u64) -> (replicates_bounded::Violation, u64) {
    let found = findings_of(path, "replicates_bounded");
    let Finding { line, violation: Violation::ReplicatesBounded(storm) } = &found[0] else { panic!("{found:?}") };
    (storm.clone(), at(path, *line).ms_since(at(path, began)))
}

#[test]
fn an_older_process_that_reconnects_is_named_with_the_stream_it_does_not_have() {
    let (storm, after_ms) = first_storm(OLDER_VERSION, 32);
    let replicates_bounded::Violation::Storm { connected, away, before, .. } = &storm;
    let [generic1] = &connected[..] else { panic!("{storm}") };
    assert_eq!((generic1.instance.as_str(), generic1.times > 5, away.len()), ("generic1", true, 0));
    let streams = before.iter().filter_map(|before| before.payload.stream.as_ref());
    assert_eq!(streams.map(|stream| stream.as_str()).collect::<Vec<_>>(), ["profile_updates", "profile_updates"]);
    // It is reported a second later.
    assert!(after_ms < 9_000, "{after_ms} ms");
}

#[test]
fn a_storm_of_all_processes_is_named_with_the_position_that_it_comes_from() {
    let (storm, after_ms) = first_storm(UNKNOWN_STREAM, 33);
    let replicates_bounded::Violation::Storm { connected, away, before, .. } = &storm;
    let [nonesuch] = &before[..] else { panic!("{storm}") };
    assert_eq!(nonesuch.payload.suspicion, Suspicion::UnknownStream);
    assert_eq!(nonesuch.payload.to_string(), "POSITION nonesuch of newproc");
    let connected = connected.iter().map(|each| &each.instance);
    let named: Vec<_> = connected.chain(away).map(|instance| instance.as_str()).collect();
    assert!(named.len() >= 4 && !named.contains(&"newproc"), "{named:?}");
    assert!(after_ms < 9_000, "{after_ms} ms");
}
