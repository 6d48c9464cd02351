//! Every finding in the recordings, with the reason why real Synapse shows it.
//!
//! An unexpected finding fails a test, and so does a finding that is missing or whose reason does not hold.

use std::collections::BTreeMap;

use squall_judge::audit::rules::{
    announcements_are_own, positions_meet, replicate_answered_once, state_with_its_event, syncs_cleared, tokens_ascend,
};
use squall_judge::audit::{Finding, Report, Transport, Violation};
use squall_protocol::{Command, Dialect};

use crate::recording::{self, Fault, REDIS, TCP};

/// The facts that a reason is checked against.
struct Evidence {
    /// The time of each payload, by its line. Empty if the recording has no times.
    at_ms: BTreeMap<u64, u64>,
    /// Each payload, by its line.
    commands: BTreeMap<u64, Command>,
    faults: Vec<Fault>,
}

impl Evidence {
    fn of(path: &str, dialect: Dialect, faults: Vec<Fault>) -> Self {
        let mut at_ms = BTreeMap::new();
        let mut commands = BTreeMap::new();
        for recorded in recording::capture(path).map(Result::unwrap) {
            commands.insert(recorded.line, dialect.parse(recorded.text().unwrap()).unwrap());
            if let Some(at) = recorded.at {
                at_ms.insert(recorded.line, at.0);
            }
        }
        Evidence { at_ms, commands, faults }
    }

    /// Returns true if that fault happened less than 10 s before the payload.
    fn just_happened(&self, line: u64, what: &str) -> bool {
        let at_ms = self.at_ms[&line];
        self.faults
            .iter()
            .any(|fault| fault.what.starts_with(what) && fault.at_ms <= at_ms && at_ms - fault.at_ms < 10_000)
    }
}

/// One kind of finding.
struct Explained {
    fingerprint: &'static str,
    count: usize,
    first_line: u64,
    /// Checks the reason on each of them.
    holds: fn(&Evidence, &Finding) -> bool,
}

/// An idle writer's position follows those of the others (Synapse #8499), and the writer announces each move: nearly one
/// `POSITION` for each row of the other event persister. An idle writer of Squall announces it once a second at most.
fn persisters_echo_each_other(_: &Evidence, finding: &Finding) -> bool {
    let Violation::AnnouncementsAreOwn(announcements_are_own::Violation::OfOthers { origin, others, .. }) =
        &finding.violation
    else {
        return false;
    };
    let other = match origin.writer.as_str() {
        "persister1" => "persister2",
        "persister2" => "persister1",
        _ => return false,
    };
    others.iter().map(|writer| writer.as_str()).eq([other])
}

/// The Redis subscription of `writer1` was cut. Without a connection its streamers drop the rows and go on. The rows are in
/// the database, or in memory, and the position of `writer1` makes every follower fetch them when it has reconnected.
/// Until then no follower has them.
fn rows_were_dropped_without_a_connection(evidence: &Evidence, finding: &Finding) -> bool {
    let Violation::PositionsMeet(positions_meet::Violation::Skipped { origin, count: 1, .. }) = &finding.violation
    else {
        return false;
    };
    origin.writer.as_str() == "writer1" && evidence.just_happened(finding.line, "client kill pubsub")
}

/// A process that connects announces its positions, sends REPLICATE, and receives its own REPLICATE, so it announces its
/// positions again. It is always the process that was just started or, once, cut off: six connections, and every stream of
/// each.
fn a_process_receives_its_own_replicate(evidence: &Evidence, finding: &Finding) -> bool {
    let Violation::ReplicateAnsweredOnce(replicate_answered_once::Violation::Twice { origin, first_on, .. }) =
        &finding.violation
    else {
        return false;
    };
    let writer = if origin.writer.as_str() == "master" { "main" } else { origin.writer.as_str() };
    let connected = evidence.just_happened(finding.line, &format!("start {writer}"))
        || (writer == "writer1" && evidence.just_happened(finding.line, "client kill pubsub"));
    let replicate = evidence.commands.range(..first_on).rev().find(|(_, command)| **command == Command::Replicate);
    connected && replicate.is_some_and(|(line, _)| finding.line - line < 50)
}

/// `generic1` got SIGTERM while four users synced with it. It sends CLEAR_USER_SYNC when it stops, but only into a buffer:
/// its sockets close before the buffer is written. Users who do not come back stay online for five minutes. In Squall the
/// command is on the wire before the process ends.
fn the_process_stopped_without_clearing_its_syncs(evidence: &Evidence, finding: &Finding) -> bool {
    let Violation::SyncsCleared(syncs_cleared::Violation::NotCleared { devices: 4, .. }) = &finding.violation else {
        return false;
    };
    let stopped = evidence.faults.iter().find(|fault| fault.what.starts_with("kill -TERM generic1")).unwrap();
    evidence.at_ms[&finding.line] < stopped.at_ms
        && !evidence.commands.values().any(|command| matches!(command, Command::ClearUserSync(_)))
}

/// The query for `caches` has no upper bound: it returns rows beyond the requested position. The writer's position then is
/// the requested one, so the next query returns those rows again. To invalidate twice does no harm, and followers drop rows
/// they have. Squall's query is bounded.
fn the_query_for_caches_has_no_upper_bound(_: &Evidence, finding: &Finding) -> bool {
    let Violation::TokensAscend(tokens_ascend::Violation::Repeated { origin, token, last }) = &finding.violation else {
        return false;
    };
    // Never more than a handful, of rows that had only just been sent.
    origin.stream.as_str() == "caches" && token <= last && last.0 - token.0 < 10
}

/// The events that create a room are persisted together, and their changes of state have the token of the first of them
/// (Synapse #20171).
fn a_new_room_has_its_state_with_the_first_event(evidence: &Evidence, finding: &Finding) -> bool {
    let Violation::StateWithItsEvent(state_with_its_event::Violation::TooEarly {
        token,
        event_token,
        is_new_room: true,
        ..
    }) = &finding.violation
    else {
        return false;
    };
    let Command::Rdata(state) = &evidence.commands[&finding.line] else { return false };
    // A room is created by fewer than ten events.
    state.row[0] == "state" && token < event_token && event_token.0 - token.0 < 10
}

/// The repeated positions on the connections of 1.163.2, by stream, with their number and the first line.
const SENT_TWICE: [(&str, usize, u64); 19] = [
    ("replicate_answered_once/account_data/twice", 2, 4142),
    ("replicate_answered_once/backfill/twice", 1, 3959),
    ("replicate_answered_once/caches/twice", 6, 3559),
    ("replicate_answered_once/device_lists/twice", 2, 4140),
    ("replicate_answered_once/events/twice", 1, 3958),
    ("replicate_answered_once/federation/twice", 1, 4909),
    ("replicate_answered_once/presence/twice", 2, 4134),
    ("replicate_answered_once/presence_federation/twice", 2, 4135),
    ("replicate_answered_once/profile_updates/twice", 1, 3961),
    ("replicate_answered_once/push_rules/twice", 2, 4138),
    ("replicate_answered_once/pushers/twice", 1, 4907),
    ("replicate_answered_once/quarantined_media/twice", 1, 4912),
    ("replicate_answered_once/receipts/twice", 2, 4137),
    ("replicate_answered_once/sticky_events/twice", 1, 3962),
    ("replicate_answered_once/thread_subscriptions/twice", 2, 4143),
    ("replicate_answered_once/to_device/twice", 2, 4141),
    ("replicate_answered_once/typing/twice", 2, 4136),
    ("replicate_answered_once/un_partial_stated_event/twice", 1, 4911),
    ("replicate_answered_once/un_partial_stated_room/twice", 1, 4910),
];

/// Checks that the report has these findings and no others, and that the reason of each holds.
fn check(report: &Report, explained: &[Explained], evidence: &Evidence) {
    let found: Vec<_> =
        report.groups().into_iter().map(|(kind, group)| (kind, group.count, group.first.line)).collect();
    let mut expected: Vec<_> =
        explained.iter().map(|each| (each.fingerprint.to_owned(), each.count, each.first_line)).collect();
    expected.sort();
    assert_eq!(found, expected);
    for finding in &report.findings {
        let fingerprint = finding.violation.fingerprint();
        let explained = explained.iter().find(|each| each.fingerprint == fingerprint).unwrap();
        assert!((explained.holds)(evidence, finding), "line {}: {}", finding.line, finding.violation);
    }
}

#[test]
fn every_finding_on_the_redis_of_1_163_has_its_reason() {
    let report = Report::of(recording::capture(REDIS), None);
    assert_eq!((report.transport, report.dialect), (Transport::Redis, Dialect::V1_163));
    assert_eq!((report.tally.payloads, report.tally.parsed, report.errors.len()), (7_566, 7_566, 0));
    let explain = |fingerprint, count, first_line, holds| Explained { fingerprint, count, first_line, holds };
    let mut explained = vec![
        explain("announcements_are_own/events/of_others", 1_627, 58, persisters_echo_each_other),
        explain("announcements_are_own/sticky_events/of_others", 2, 2_821, persisters_echo_each_other),
        explain("positions_meet/receipts/skipped", 1, 4_703, rows_were_dropped_without_a_connection),
        explain("positions_meet/typing/skipped", 1, 4_702, rows_were_dropped_without_a_connection),
        explain("state_with_its_event/events/too_early", 25, 70, a_new_room_has_its_state_with_the_first_event),
        explain("syncs_cleared/not_cleared", 1, 3_086, the_process_stopped_without_clearing_its_syncs),
        explain("tokens_ascend/caches/repeated", 70, 2_671, the_query_for_caches_has_no_upper_bound),
    ];
    explained.extend(
        SENT_TWICE
            .map(|(fingerprint, count, line)| explain(fingerprint, count, line, a_process_receives_its_own_replicate)),
    );
    check(&report, &explained, &Evidence::of(REDIS, Dialect::V1_163, recording::faults()));
    // A rule without findings had something to judge.
    assert!(report.checks.values().all(|judged| *judged > 0), "{:?}", report.checks);
}

#[test]
fn every_finding_on_the_tcp_of_1_19_has_its_reason() {
    let report = Report::of(recording::capture(TCP), None);
    assert_eq!((report.transport, report.dialect), (Transport::Tcp, Dialect::V1_19));
    assert_eq!((report.tally.payloads, report.tally.parsed, report.errors.len()), (2_271, 2_271, 0));
    let holds = the_query_for_caches_has_no_upper_bound;
    let explained = [Explained { fingerprint: "tokens_ascend/caches/repeated", count: 3, first_line: 2_095, holds }];
    check(&report, &explained, &Evidence::of(TCP, Dialect::V1_19, Vec::new()));
}

#[test]
fn the_older_recording_does_not_have_the_newer_dialect() {
    let report = Report::of(recording::capture(TCP), Some(Dialect::V1_163));
    let groups = report.groups();
    // Only its sixteen positions differ between the dialects.
    assert_eq!(groups["payloads_readable/not_a_command"].count, 16);
    assert_eq!(report.tally.parsed, 2_271 - 16);
}
