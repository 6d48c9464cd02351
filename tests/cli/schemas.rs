//! The JSON output of `follow` and `audit`, against the schemas of docs/schemas.

use serde_json::Value;

use crate::schema::differences;
use crate::{Scratch, squall};

fn schema(name: &str) -> Value {
    let text = std::fs::read_to_string(format!("docs/schemas/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Checks each line of the output, and returns them.
fn checked(name: &str, arguments: &[&str]) -> Vec<Value> {
    let schema = schema(name);
    let output = squall(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = Vec::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let found = differences(&schema, &value);
        assert!(found.is_empty(), "{}\n{found:#?}", &line[..line.len().min(500)]);
        lines.push(value);
    }
    assert!(!lines.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    lines
}

#[test]
fn the_reports_of_an_audit_have_the_documented_form() {
    let away = Scratch::new(
        "away.jsonl",
        concat!(
            "{\"t\": 1, \"ch\": \"h\", \"data\": \"PING 1\"}\n",
            "{\"t\": 9, \"away\": {\"since\": 2, \"why\": \"a test\"}}\n",
            "{\"t\": 9.5, \"ch\": \"h\", \"data\": \"RDATA groups a 2 [1]\"}\nnot a line\n",
        ),
    );
    let recordings = ["tests/data/redis_traffic.jsonl.gz", "tests/data/tcp_1.19.1.txt.gz", away.path()];
    let reports = checked("audit", &[&["audit", "--json", "--all"][..], &recordings].concat());
    assert_eq!(reports.len(), 3);
    assert!(reports[0]["violations"].as_array().unwrap().len() > 1_000);
    assert_eq!((&reports[2]["malformed"], reports[2]["away"].as_array().unwrap().len()), (&1.into(), 1));
}

#[test]
fn the_events_of_a_follower_that_hears_nothing_have_the_documented_form() {
    let lines =
        checked("follow", &["follow", "--redis", "redis://127.0.0.1:1", "--server-name", "h", "--for", "1s", "--json"]);
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"deaf"), Some(&"summary")), "{kinds:?}");
}

#[test]
fn a_line_of_another_form_does_not_fit() {
    for line in ["{\"kind\": \"news\", \"t\": 1}", "{\"kind\": \"deaf\", \"t\": 1, \"broker\": \"h:1\"}", "{}"] {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(!differences(&schema("follow"), &value).is_empty(), "{line}");
        assert!(!differences(&schema("audit"), &value).is_empty(), "{line}");
    }
}
