//! Recordings that are small while they are packed, and huge or full of findings once they are read.

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use squall_judge::audit::capture::RECORDED_BYTES_MAX;
use squall_judge::audit::report::KEPT_OF_KIND_MAX;
use squall_judge::audit::{Audit, Capture, Report};

use crate::memory::Watch;

/// Memory that an audit of lines of ordinary length may take, in bytes.
const AUDIT_BYTES_MAX: usize = 16 << 20;

/// Length of a report, in bytes.
const REPORT_BYTES_MAX: usize = 400_000;

/// Returns a line of a recording of Redis.
fn line(payload: &str) -> String {
    serde_json::json!({ "t": 1, "ch": "h", "data": payload }).to_string() + "\n"
}

fn packed(lines: impl IntoIterator<Item = String>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for line in lines {
        encoder.write_all(line.as_bytes()).unwrap();
    }
    encoder.finish().unwrap()
}

/// Audits a recording as `squall audit --json` does, and checks the memory and the length of what is printed.
fn audited(case: &str, bytes_max: usize, lines: impl IntoIterator<Item = String>) -> Report {
    let packed = packed([line("PING 1")].into_iter().chain(lines));
    let watch = Watch::begin();
    let capture = Capture::new(Cursor::new(packed)).unwrap();
    let report = Report::keeping(Audit::new(capture.transport(), None), capture, KEPT_OF_KIND_MAX);
    let json = report.to_json(case);
    let errors: usize = report.errors.iter().map(|error| error.to_string().len()).sum();
    watch.assert_below(bytes_max, case);
    assert!(json.len() + errors < REPORT_BYTES_MAX, "{case}: {} and {errors} bytes are printed", json.len());
    report
}

/// Returns the number of findings of one kind.
fn count(report: &Report, fingerprint: &str) -> usize {
    report.groups().get(fingerprint).map_or(0, |group| group.count)
}

#[test]
fn a_line_without_an_end_is_not_held() {
    let mebibyte = "A".repeat(1 << 20);
    let endless = std::iter::repeat_n(mebibyte, 100);
    let report = audited("one line", 3 * RECORDED_BYTES_MAX, endless.chain(["\n".to_owned(), line("PING 2")]));
    assert_eq!((report.malformed(), report.tally.payloads), (1, 2), "the line after it is read");
}

#[test]
fn lines_that_cannot_be_read_are_counted() {
    let long = format!("{{\"t\":\"{}\"}}\n", "A".repeat(2_000));
    for (case, unreadable) in [("short lines", "{x\n".to_owned()), ("long lines", long)] {
        let report = audited(case, AUDIT_BYTES_MAX, std::iter::repeat_n(unreadable, 100_000));
        assert_eq!((report.malformed(), report.errors.len() as u64), (100_000, KEPT_OF_KIND_MAX), "{case}");
    }
}

#[test]
fn findings_on_every_line_are_counted() {
    let back =
        audited("positions", AUDIT_BYTES_MAX, (0..50_000).map(|n| line(&format!("POSITION events a {0} {0}", -n))));
    assert_eq!(count(&back, "tokens_ascend/events/went_back"), 49_999);
    let control = "\u{1b}".repeat(1_000);
    let texts = audited("texts", AUDIT_BYTES_MAX, (0..20_000).map(|n| line(&format!("NOSUCH{n} {control}"))));
    assert_eq!(count(&texts, "payloads_readable/not_a_command"), 20_000);
    let rows = audited(
        "rows",
        AUDIT_BYTES_MAX,
        (0..20_000).map(|n| line(&format!(r#"RDATA typing a {n} ["{}"]"#, "A".repeat(1_000)))),
    );
    assert_eq!(count(&rows, "payloads_readable/typing/not_a_row"), 20_000);
    let channel = "A".repeat(1_000);
    let channels = (0..20_000).map(|n| format!("{{\"t\":1,\"ch\":\"{n}{channel}\",\"data\":\"PING 1\"}}\n"));
    let channels = audited("channels", AUDIT_BYTES_MAX, channels);
    assert_eq!(count(&channels, "commands_in_direction/wrong_channel"), 20_000);
}

#[test]
fn names_that_are_ever_new_are_not_held() {
    let streams = audited("streams", AUDIT_BYTES_MAX, (0..50_000).map(|n| line(&format!("POSITION s{n} w{n} 1 1"))));
    assert_eq!(count(&streams, "payloads_readable/unfollowed"), 50_000 - 100);
    let writers = audited("writers", AUDIT_BYTES_MAX, (0..50_000).map(|n| line(&format!("POSITION caches w{n} 1 1"))));
    assert_eq!(count(&writers, "payloads_readable/unfollowed"), 50_000 - 2_000);
    let user = "u".repeat(400);
    let devices = (0..50_000).map(|n| line(&format!("USER_SYNC process @{n}{user}:h {user} start 0")));
    audited("devices", AUDIT_BYTES_MAX, devices);
    let users =
        (0..60_000).map(|n| line(&format!(r#"RDATA presence w {n} ["@{n}{user}:h","online",1,1,1,null,true]"#)));
    let users = audited("users", AUDIT_BYTES_MAX, users);
    let bounds: Vec<_> = users.exceeded.iter().map(|exceeded| (exceeded.rule, exceeded.bound.unjudged)).collect();
    assert_eq!(bounds, [("presence_steady", 10_000)], "the report says that not all was judged");
}

#[test]
fn what_waits_to_be_judged_is_bounded() {
    let gaps = audited(
        "gaps",
        AUDIT_BYTES_MAX,
        (0..100_000).map(|n| line(&format!("POSITION caches a {} {}", 2 * n, 2 * n + 1))),
    );
    assert_eq!(gaps.exceeded.iter().map(|exceeded| exceeded.rule).collect::<Vec<_>>(), ["positions_meet"]);
    let positions = (0..200).map(|writer| line(&format!("POSITION events w{writer} 1 1")));
    let rows = (0..200).map(|writer| line(&format!(r#"RDATA events w{writer} 9990 ["x"]"#)));
    audited("writers that pass the same tokens", 2 * AUDIT_BYTES_MAX, positions.chain(rows));
    let away =
        (0..20_000).map(|n| format!("{{\"t\":{n},\"away\":{{\"since\":{n},\"why\":\"{}\"}}}}\n", "A".repeat(1_000)));
    assert_eq!(audited("gaps", AUDIT_BYTES_MAX, away).gaps.count, 20_000);
}
