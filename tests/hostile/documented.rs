//! Checks that `docs/limits.md` agrees with the constants.

use std::time::Duration;

use squall::limits::{
    BATCH_ROWS_MAX, CACHED_MAX, COMMANDS_QUEUED_MAX, HTTP_CONNECTIONS_MAX, ITEMS_QUEUED_MAX, KEPT_BYTES_MAX, KEPT_MAX,
    ROWS_BYTES_MAX, TCP_CONNECTIONS_MAX, TYPING_KEPT_MS, UNANSWERED_MAX,
};
use squall::presence;
use squall::replication::connection::NEWER_KINDS_MAX;
use squall::replication::unknown_writers::UNKNOWN_WRITERS_MAX;
use squall::transport::{http, redis, tcp};
use squall_judge::audit::rules::{presence_steady, syncs_cleared};
use squall_judge::audit::{GAPS_KEPT_MAX, bounds, capture, report};
use squall_protocol::rows::ROWS_TARGET;
use squall_protocol::{LINE_BYTES_MAX, PAYLOAD_BYTES_MAX};

const LIMITS: &str = include_str!("../../docs/limits.md");

/// Returns the limits in the document for the constant `name`.
fn documented(name: &str) -> Vec<String> {
    let rows = LIMITS.lines().filter(|line| line.starts_with(&format!("| [`{name}`](")));
    rows.map(|row| row.split(" | ").nth(1).unwrap().to_owned()).collect()
}

/// Formats a number as the document does.
fn grouped(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{} {:03}", grouped(number / 1_000), number % 1_000) }
}

#[test]
fn the_limits_are_those_of_the_document() {
    let amounts: &[(&str, &[usize])] = &[
        ("LINE_BYTES_MAX", &[LINE_BYTES_MAX]),
        ("TCP_CONNECTIONS_MAX", &[TCP_CONNECTIONS_MAX]),
        ("HTTP_CONNECTIONS_MAX", &[HTTP_CONNECTIONS_MAX]),
        ("COMMANDS_QUEUED_MAX", &[COMMANDS_QUEUED_MAX]),
        ("PAYLOAD_BYTES_MAX", &[PAYLOAD_BYTES_MAX, bounds::PAYLOAD_BYTES_MAX]),
        ("REPLY_BYTES_MAX", &[redis::REPLY_BYTES_MAX]),
        ("WAITING_BYTES_MAX", &[redis::WAITING_BYTES_MAX]),
        ("HEAD_BYTES_MAX", &[http::HEAD_BYTES_MAX]),
        ("BODY_BYTES_MAX", &[http::BODY_BYTES_MAX]),
        ("ANSWER_BYTES_MAX", &[http::ANSWER_BYTES_MAX]),
        ("KEPT_MAX", &[KEPT_MAX]),
        ("KEPT_BYTES_MAX", &[KEPT_BYTES_MAX]),
        ("SYNCING_MAX", &[presence::SYNCING_MAX]),
        ("SYNCING_OF_USER_MAX", &[presence::SYNCING_OF_USER_MAX]),
        ("OFFLINE_KEPT_MAX", &[presence::OFFLINE_KEPT_MAX]),
        ("BATCH_ROWS_MAX", &[BATCH_ROWS_MAX]),
        ("ROWS_BYTES_MAX", &[ROWS_BYTES_MAX]),
        ("ITEMS_QUEUED_MAX", &[ITEMS_QUEUED_MAX]),
        ("UNANSWERED_MAX", &[UNANSWERED_MAX]),
        ("CACHED_MAX", &[CACHED_MAX]),
        ("ROWS_TARGET", &[ROWS_TARGET]),
        ("TYPING_KEPT_MS", &[TYPING_KEPT_MS as usize]),
        ("METRICS_CONNECTIONS_MAX", &[squall::metrics::METRICS_CONNECTIONS_MAX]),
        ("DESCRIPTORS_RESERVED", &[squall::serve::DESCRIPTORS_RESERVED]),
        ("DESCRIPTORS_MIN", &[squall::serve::DESCRIPTORS_MIN]),
        ("TRANSACTIONS_WAITING_MAX", &[squall::store::TRANSACTIONS_WAITING_MAX]),
        ("NEWER_KINDS_MAX", &[NEWER_KINDS_MAX]),
        ("UNKNOWN_WRITERS_MAX", &[UNKNOWN_WRITERS_MAX]),
        ("RECORDED_BYTES_MAX", &[capture::RECORDED_BYTES_MAX]),
        ("KEPT_OF_KIND_MAX", &[report::KEPT_OF_KIND_MAX as usize]),
        ("GAPS_KEPT_MAX", &[GAPS_KEPT_MAX]),
        ("STREAMS_MAX", &[bounds::STREAMS_MAX]),
        ("WRITERS_MAX", &[bounds::WRITERS_MAX]),
        ("NAME_BYTES_MAX", &[bounds::NAME_BYTES_MAX]),
        ("PROCESSES_MAX", &[presence::PROCESSES_MAX, syncs_cleared::PROCESSES_MAX]),
        ("DEVICES_MAX", &[syncs_cleared::DEVICES_MAX]),
        ("USERS_MAX", &[presence_steady::USERS_MAX]),
    ];
    let durations: &[(&str, &[Duration])] = &[
        ("LINE_TIMEOUT", &[tcp::LINE_TIMEOUT]),
        ("INTRODUCTION_TIMEOUT", &[tcp::INTRODUCTION_TIMEOUT]),
        ("PING_TIMEOUT", &[tcp::PING_TIMEOUT]),
        ("CLOSE_GRACE", &[tcp::CLOSE_GRACE]),
        ("REPLY_TIMEOUT", &[redis::REPLY_TIMEOUT]),
        ("HEAD_TIMEOUT", &[http::HEAD_TIMEOUT]),
        ("BODY_TIMEOUT", &[http::BODY_TIMEOUT]),
        ("WRITE_TIMEOUT", &[http::WRITE_TIMEOUT]),
        ("RESPONSE_TIMEOUT", &[http::RESPONSE_TIMEOUT]),
        ("BUSY_TIMEOUT", &[squall::store::BUSY_TIMEOUT]),
        ("RENEWED_WITHIN", &[squall::store::RENEWED_WITHIN]),
        ("CONNECT_TIMEOUT", &[squall_env::network::CONNECT_TIMEOUT]),
    ];
    let amounts = amounts.iter().map(|(name, limits)| (name, limits.iter().map(|limit| grouped(*limit)).collect()));
    let seconds = |limit: &Duration| format!("{} s", limit.as_secs());
    let durations = durations.iter().map(|(name, limits)| (name, limits.iter().map(seconds).collect()));
    for (name, limits) in amounts.into_iter().chain(durations) {
        let limits: Vec<String> = limits;
        let documented = documented(name);
        let same = limits.len() == documented.len()
            && limits.iter().zip(&documented).all(|(limit, text)| text.starts_with(&format!("{limit} ")));
        assert!(same, "{name} is {limits:?}, but the document has {documented:?}");
    }
}
