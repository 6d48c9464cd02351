//! `squall defects`: measurements that were kept in a file.

use crate::{Scratch, assert_narrow, refused, squall};

/// Two lines that `squall defects --json` printed. The first one has the old name of an invariant.
const MEASURED: &str = r#"
{"name":"unknown_stream_position","upstream":"Synapse 1.163.2, measured","invariant":"strangers_isolated","scenario":"redis","needs":null,"found":true,"seeds_to_find":[2,4,2,1,1],"seeds_max":1000,"shrunk":{"faults":1,"operations":0,"clients":0,"hosts":2},"passes_without":true,"corpus_finds":true,"build_s":10,"wall_s":16}
{"name":"streamer_stuck","upstream":"Synapse #7255","invariant":"stuck","scenario":"storm","needs":null,"found":false,"seeds_to_find":[null,7,null],"seeds_max":1000,"shrunk":{"faults":2,"operations":1,"clients":0,"hosts":3},"passes_without":true,"corpus_finds":null,"build_s":10,"wall_s":90}
"#;

#[test]
fn measurements_of_defects_are_printed_as_markdown_without_measuring_again() {
    let measured = Scratch::new("measured.jsonl", MEASURED);
    let markdown = |more: &[&str]| {
        let output = squall(&[&["defects", "--from", measured.path(), "--markdown"], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let heading = "| defect | known from | found by | seeds of each range | median | shrunk to | remarks |\n\
                   |---|---|---|---|---|---|---|\n";
    let found = "| unknown_stream_position | Synapse 1.163.2, measured | unknown_rows_isolated (redis) | 2, 4, 2, 1, 1 | 2 \
                 | 1 fault, 0 operations, 0 clients, 2 hosts |  |\n";
    let not_found = "| streamer_stuck | Synapse #7255 | stuck | > 1000, 7, > 1000 | > 1000 | 2 faults, 1 operation, 0 clients, 3 hosts \
                     | not found everywhere |\n";
    assert_eq!(markdown(&[]), (Some(1), format!("{heading}{found}{not_found}")));
    assert_eq!(markdown(&["unknown_stream_position"]), (Some(0), format!("{heading}{found}")));
}

#[test]
fn measurements_of_defects_are_printed_for_a_terminal_and_as_json() {
    let measured = Scratch::new("measured-too.jsonl", MEASURED);
    let output = squall(&["defects", "--from", measured.path()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_narrow(&text);
    assert!(text.contains("\nstreamer_stuck: not found everywhere\n"), "{text}");
    assert_eq!((output.status.code(), text.lines().last()), (Some(1), Some("verdict: see the remarks")));
    let json = squall(&["defects", "--from", measured.path(), "--json"]);
    let lines = String::from_utf8(json.stdout).unwrap();
    assert_eq!(lines.trim(), MEASURED.trim().replace("strangers_isolated", "unknown_rows_isolated"));
}

#[test]
fn a_file_without_measurements_of_the_defect_is_refused() {
    let measured = Scratch::new("measured-others.jsonl", MEASURED);
    refused(&["defects", "--from", measured.path(), "no_such_defect"], "no_such_defect");
    refused(&["defects", "--from", "no-such-file.jsonl"], "no-such-file.jsonl");
    let malformed = Scratch::new("measured-not.jsonl", "\n{\"name\": 1}\n");
    refused(&["defects", "--from", malformed.path()], ", line 2: ");
    refused(&["defects", "--from", measured.path(), "--seeds", "9"], "cannot be used with");
    refused(&["defects", "--json", "--markdown"], "cannot be used with");
}
