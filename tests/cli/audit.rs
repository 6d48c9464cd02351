//! `squall audit`.

use serde_json::Value;

use crate::{Scratch, configuration, position, printed, refused, squall};

const RECORDINGS: [&str; 2] = ["tests/data/redis_traffic.jsonl.gz", "tests/data/tcp_1.19.1.txt.gz"];

/// Returns the exit status of an audit, one JSON object for each recording, and the errors.
fn audited(arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let output = squall(&[&["audit", "--json"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let reports = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), reports, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn recordings_are_audited_one_by_one() {
    let (status, reports, errors) = audited(&RECORDINGS);
    assert_eq!((status, &*errors), (Some(1), ""));
    let [redis, tcp] = &reports[..] else { panic!("{} reports", reports.len()) };
    assert_eq!(
        (&redis["file"], &redis["payloads"], &redis["parsed"]),
        (&RECORDINGS[0].into(), &7_566.into(), &7_566.into())
    );
    assert_eq!((&redis["dialect"], &redis["commands"]["RDATA"]), (&"1.163".into(), &3_922.into()));
    assert_eq!(redis["streams"]["events"]["persister1"]["last_token"], 1_678);
    assert_eq!((&tcp["file"], &tcp["payloads"], &tcp["parsed"]), (&RECORDINGS[1].into(), &2_271.into(), &2_271.into()));
    assert_eq!((&tcp["dialect"], &tcp["violations"][0]["line"]), (&"1.19".into(), &2_095.into()));
    assert_eq!(tcp["violations"][0]["invariant"], "tokens_ascend");
}

#[test]
fn a_recording_without_a_payload_has_no_verdict() {
    let empty = Scratch::new("empty.jsonl", "");
    let mark = Scratch::new("mark.jsonl", "{\"t\": 1, \"mark\": true}\n");
    for recording in [empty, mark] {
        let output = squall(&["audit", recording.path()]);
        let (text, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let nothing = "there is no payload in it, so nothing was checked";
        assert_eq!((output.status.code(), text.lines().last()), (Some(2), Some(&*format!("verdict: {nothing}"))));
        assert!(error.starts_with(&format!("error: {}: {nothing}. Name a recording", recording.path())), "{error}");
        assert_eq!(audited(&[recording.path(), RECORDINGS[1]]).0, Some(2));
    }
}

#[test]
fn an_audit_for_a_reader_groups_what_it_found() {
    let output = squall(&["audit", "--strict", RECORDINGS[1]]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("2271 of 2271 payloads parsed: PING 1, POSITION 16, RDATA 2253, SERVER 1\n"), "{text}");
    let finding = text.lines().find(|line| line.starts_with("tokens_ascend/caches/repeated")).expect(&text);
    let expected = ["tokens_ascend/caches/repeated", "habit", "3", "2095"];
    assert_eq!(finding.split_whitespace().collect::<Vec<_>>(), expected);
}

#[test]
fn habits_have_one_line_each_and_do_not_count() {
    let healthy = "tests/data/live/healthy.jsonl.gz";
    let text = printed(&["audit", healthy]);
    let after = &text[position(&text, "habit of every Synapse")..];
    let lines: Vec<_> = after.lines().collect();
    assert_eq!(lines.len(), 6, "{after}");
    assert!(lines[1].starts_with("announcements_are_own/of_others "), "{after}");
    assert!(lines[2].starts_with("state_with_its_event/events/too_early "), "{after}");
    assert!(lines[3].starts_with("tokens_ascend/caches/repeated "), "{after}");
    assert!(lines[5].starts_with("verdict: no findings; "), "{after}");
    assert!(!text.contains("\nline "), "none is printed one by one: {text}");
    assert!(printed(&["audit", "--verbose", healthy]).contains("\nline "), "unless the operator asks for it");
    assert_eq!(squall(&["audit", "--strict", healthy]).status.code(), Some(1));
    let (status, reports, _) = audited(&["--all", healthy]);
    let habits = reports[0]["classes"]["habit"].as_u64().unwrap();
    assert_eq!((status, &reports[0]["violations"][0]["class"]), (Some(0), &"habit".into()));
    assert_eq!(habits, reports[0]["violations"].as_array().unwrap().len() as u64);
}

#[test]
fn ignored_kinds_are_left_out_and_counted() {
    let restart = "tests/data/live/restart.jsonl.gz";
    assert_eq!(squall(&["audit", restart]).status.code(), Some(1));
    let text = printed(&["audit", "--ignore", "syncs_cleared", restart]);
    assert!(text.contains("\nignored: 1 finding\n") && !text.contains("CLEAR_USER_SYNC:"), "{text}");
    let ignored = ["--strict", "--ignore", "syncs_cleared/not_cleared", "--ignore", "tokens_ascend/caches"];
    let (status, reports, _) = audited(&[&ignored[..], &[restart]].concat());
    assert_eq!((status, &reports[0]["ignored"]), (Some(1), &2.into()), "the other habits count");
    for violation in reports[0]["violations"].as_array().unwrap() {
        let rule = violation["invariant"].as_str().unwrap();
        assert!(!["syncs_cleared", "tokens_ascend"].contains(&rule), "{violation}");
    }
    refused(&["audit", "--ignore", "nonsense", restart], "positions_meet/skipped");
    refused(&["audit", "--ignore", "syncs_cleared/nonsense", restart], "syncs_cleared/not_cleared");
}

#[test]
fn tokens_without_a_row_are_shown() {
    let text = printed(&["audit", "tests/data/live/publisher_reset.jsonl.gz"]);
    let row = text.lines().find(|line| line.starts_with("to_device ")).expect(&text);
    assert_eq!(row.split_whitespace().last(), Some("3"), "{text}");
    assert!(text.contains("to_device of writer1 (62, 65, 68)"), "{text}");
    assert!(!text.contains("presence of writer1 ("), "presence replaces rows all the time: {text}");
    let (_, reports, _) = audited(&["tests/data/live/publisher_reset.jsonl.gz"]);
    let counts = &reports[0]["streams"]["to_device"]["writer1"];
    assert_eq!((&counts["unsent"], &counts["last_unsent"]), (&3.into(), &serde_json::json!([62, 65, 68])));
}

#[test]
fn a_recording_without_findings_is_all_well() {
    let recording = Scratch::new("clean.txt", "SERVER h\nPOSITION typing a 1 1\nRDATA typing a 2 [\"!r\",[]]\n");
    let (status, reports, _) = audited(&[recording.path()]);
    assert_eq!((status, &reports[0]["violations"]), (Some(0), &serde_json::json!([])));
}

#[test]
fn a_dialect_that_is_named_is_used() {
    let (status, reports, _) = audited(&["--dialect", "1.163", RECORDINGS[1]]);
    let not_positions = Value::from(2_271 - 16);
    assert_eq!((status, &reports[0]["parsed"]), (Some(1), &not_positions));
}

#[test]
fn an_unreadable_recording_is_reported_and_the_others_are_still_checked() {
    let text =
        "{\"t\": 1, \"ch\": \"h\", \"data\": \"PING 1\"}\nnonsense\n{\"t\": 2, \"ch\": \"h\", \"data\": \"PING 2\"}\n";
    let malformed = Scratch::new("malformed.jsonl", text);
    let (status, reports, errors) = audited(&["no-such-file.gz", malformed.path(), RECORDINGS[1]]);
    assert_eq!(status, Some(2), "{errors}");
    let parsed: Vec<_> = reports.iter().map(|report| (&report["parsed"], &report["malformed"])).collect();
    assert_eq!(parsed, [(&2.into(), &1.into()), (&2_271.into(), &0.into())]);
    let errors: Vec<&str> = errors.lines().collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("no-such-file.gz") && errors[0].contains("Name a recording"), "{}", errors[0]);
    let at = format!("{}: line 2: ", malformed.path());
    assert!(errors[1].contains(&at) && errors[1].contains("mend the line"), "{}", errors[1]);
}

#[test]
fn twenty_findings_and_unreadable_lines_of_a_kind_are_printed_and_all_are_counted() {
    let line = |number: i64| {
        let position = format!("POSITION events a {0} {0}", -number);
        serde_json::json!({ "t": 1, "ch": "h", "data": position }).to_string() + "\nnonsense\n"
    };
    let hostile = Scratch::new("hostile.jsonl", &(0..1_000).map(line).collect::<String>());
    let (status, reports, errors) = audited(&[hostile.path()]);
    let report = &reports[0];
    assert_eq!((status, &report["malformed"], &report["classes"]["loss"]), (Some(2), &1_000.into(), &999.into()));
    assert_eq!(report["findings"], serde_json::json!({ "tokens_ascend/events/went_back": 999 }));
    assert_eq!((report["violations"].as_array().unwrap().len(), errors.lines().count()), (20, 21), "{errors}");
    assert!(errors.lines().last().unwrap().contains("980 more lines are not payloads from Redis"), "{errors}");
    let text = String::from_utf8(squall(&["audit", "--verbose", hostile.path()]).stdout).unwrap();
    assert!(text.contains("\n… and 979 more of tokens_ascend/went_back (loss)\n"), "{text}");
    let (_, every, errors) = audited(&["--all", hostile.path()]);
    assert_eq!((every[0]["violations"].as_array().unwrap().len(), errors.lines().count()), (999, 1_000));
}

#[test]
fn an_audit_of_nothing_or_by_an_unknown_dialect_is_refused() {
    refused(&["audit"], "CAPTURE");
    refused(&["audit", "--dialect", "1.20", RECORDINGS[0]], "write 1.163 or 1.19");
    refused(&["audit", "no-such-file.gz"], "no-such-file.gz");
}

#[test]
fn a_configuration_says_who_writes_what() {
    let lines = ["POSITION events writer1 1 1", "POSITION typing typist 1 1", "POSITION pushers another 1 1"];
    let line = |text: &str| serde_json::json!({ "t": 1, "ch": "h", "data": text }).to_string() + "\n";
    let recording = Scratch::new("announced.jsonl", &lines.map(line).concat());
    let file = Scratch::new("writers.toml", &configuration("squall.db", 1, 2));
    let kinds = |arguments: &[&str]| -> Vec<String> {
        let (_, reports, errors) = audited(&[arguments, &[recording.path()]].concat());
        assert_eq!(errors, "");
        let violations = reports[0]["violations"].as_array().unwrap();
        violations.iter().map(|violation| violation["fingerprint"].as_str().unwrap().to_owned()).collect()
    };
    assert!(kinds(&[]).is_empty());
    let events = "one_writer/events/not_its_writer";
    let typing = "one_writer/typing/not_its_writer";
    assert_eq!(kinds(&["--config", file.path()]), [events, typing]);
    assert_eq!(kinds(&["--config", file.path(), "--writer", "typing=typist"]), [events]);
    assert_eq!(kinds(&["--writer", "typing=master", "--writer", "events=writer1"]), [typing]);
}
