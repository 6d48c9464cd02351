//! `--synapse-config` and the password of the broker, for `follow` and `audit`.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::program::command;
use crate::{Scratch, refused, squall};

const HOMESERVER: &str = "\
server_name: h
report_stats: false
instance_map: {main: {host: localhost, port: 9093}, writer1: {host: localhost, port: 9094}}
stream_writers: {events: [writer1], typing: writer1}
redis: {enabled: true, host: 127.0.0.1, port: 1, password: precious}
";

/// Returns the fingerprints that an audit finds.
fn found(arguments: &[&str]) -> Vec<String> {
    let output = squall(&[&["audit", "--json"], arguments].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let violations = report["violations"].as_array().unwrap();
    violations.iter().map(|violation| violation["fingerprint"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn synapses_configuration_says_who_writes_what() {
    let lines = ["events writer1", "typing writer1", "receipts writer1", "backfill master", "caches x"];
    let line = |of: &str| serde_json::json!({ "t": 1, "ch": "h", "data": format!("POSITION {of} 1 1") }).to_string();
    let recording = Scratch::new("synapse.jsonl", &lines.map(line).join("\n"));
    let file = Scratch::new("homeserver.yaml", HOMESERVER);
    assert!(found(&[recording.path()]).is_empty());
    let expected = ["one_writer/receipts/not_its_writer", "one_writer/backfill/not_its_writer"];
    assert_eq!(found(&["--synapse-config", file.path(), recording.path()]), expected);
    let arguments = ["--synapse-config", file.path(), "--writer", "receipts=writer1", recording.path()];
    assert_eq!(found(&arguments), expected[1..]);
}

/// The configuration of the deployment that tests/data/redis_traffic.jsonl.gz was recorded beside, with defaults for the
/// streams that its main process writes.
const RECORDED: &str = "\
instance_map: {main: {}, persister1: {}, persister2: {}, writer1: {}}
stream_writers:
  events: [persister1, persister2]
  account_data: writer1
  device_lists: writer1
  presence: writer1
  push_rules: writer1
  receipts: writer1
  thread_subscriptions: writer1
  to_device: writer1
  typing: writer1
";

#[test]
fn unmodified_synapse_writes_what_its_configuration_says() {
    let recording = "tests/data/redis_traffic.jsonl.gz";
    let file = Scratch::new("recorded.yaml", RECORDED);
    let expected = found(&[recording]);
    assert!(!expected.is_empty() && !expected.iter().any(|fingerprint| fingerprint.starts_with("one_writer/")));
    assert_eq!(found(&["--synapse-config", file.path(), recording]), expected);
}

#[test]
fn synapses_configuration_is_enough_to_follow() {
    let file = Scratch::new("follow.yaml", HOMESERVER);
    let output = squall(&["follow", "--synapse-config", file.path(), "--for", "1s"]);
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("the broker at 127.0.0.1:1"), "{text}");
    assert!(text.contains("h on the broker"), "{text}");
    assert!(!text.contains("precious"), "{text}");
}

#[test]
fn a_configuration_without_a_broker_or_a_name_is_refused() {
    let nothing = Scratch::new("nothing.yaml", "report_stats: false\n");
    let broker = Scratch::new("broker.yaml", "redis: {enabled: true}\n");
    refused(&["follow", "--synapse-config", nothing.path(), "--server-name", "h"], "name it by --redis");
    refused(&["follow", "--synapse-config", broker.path()], "name it by --server-name");
    refused(&["follow", "--synapse-config", "no-such-file.yaml"], "cannot read no-such-file.yaml");
    refused(&["audit", "--synapse-config", "no-such-file.yaml", "x"], "cannot read no-such-file.yaml");
    let wrong = Scratch::new("wrong.yaml", "redis: {enabled: true, port: {precious: 1}}\n");
    refused(&["follow", "--synapse-config", wrong.path()], "redis.port must be a port, and is keys with values");
}

/// A broker that Squall cannot use as it is configured.
const UNUSABLE: [&str; 3] = [
    "redis: {enabled: true, host: 127.0.0.1, port: 1, use_tls: true, ca_path: /etc/ssl/certs}\n",
    "redis: {enabled: true, password: precious, password_path: precious}\n",
    "redis: localhost\n",
];

#[test]
fn a_broker_that_is_not_used_need_not_be_usable() {
    let recording = Scratch::new("unused.jsonl", "{\"t\": 1, \"ch\": \"h\", \"data\": \"POSITION typing a 1 1\"}");
    for (number, redis) in UNUSABLE.into_iter().enumerate() {
        let file = Scratch::new(&format!("unusable-{number}.yaml"), &format!("server_name: h\n{redis}"));
        let output = squall(&["follow", "--synapse-config", file.path(), "--for", "1s"]);
        assert!(
            String::from_utf8(output.stderr).unwrap().starts_with("error: ") && output.stdout.is_empty(),
            "{redis}"
        );
        let url = "redis://127.0.0.1:1";
        let output = squall(&["follow", "--synapse-config", file.path(), "--redis", url, "--for", "1s"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("nothing was heard of h on the broker at 127.0.0.1:1 ("), "{error}");
        assert_eq!(found(&["--synapse-config", file.path(), recording.path()]), ["one_writer/typing/not_its_writer"]);
    }
}

#[test]
fn a_folder_of_authorities_has_a_remedy_that_works() {
    let file = Scratch::new("ca-path.yaml", &format!("server_name: h\n{}", UNUSABLE[0]));
    let follow = ["follow", "--synapse-config", file.path(), "--for", "1s"];
    refused(&follow, "name one with the broker's authority by --ca-file");
    // It is read now, and is no certificate.
    refused(&[&follow[..], &["--ca-file", "Cargo.toml"]].concat(), "cannot use Cargo.toml");
}

#[test]
fn synapses_configuration_may_be_a_pipe() {
    for command_line in [&["follow", "--for", "1s"][..], &["audit", "tests/data/tcp_1.19.1.txt.gz"]] {
        let mut command = command(&[command_line, &["--synapse-config", "/dev/stdin"]].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(HOMESERVER.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("verdict: "), "{command_line:?}: {text}");
    }
}

#[test]
fn a_password_is_given_once_and_never_printed() {
    let url = "redis://:precious@127.0.0.1:1";
    let file = Scratch::new("password", "precious\n");
    let empty = Scratch::new("empty-password", "\n");
    let follow = |arguments: &[&str], variable: Option<&str>| {
        let arguments = [&["follow", "--server-name", "h", "--for", "1s"], arguments].concat();
        let mut command = command(&arguments);
        command.envs(variable.map(|value| ("SQUALL_REDIS_PASSWORD", value)));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("precious"), "{text}");
        (output.status.code(), text)
    };
    for (arguments, variable) in [
        (&["--redis", url][..], None),
        (&["--redis", "redis://127.0.0.1:1", "--password-file", file.path()], None),
        (&["--redis", "redis://127.0.0.1:1"], Some("precious")),
    ] {
        let (_, text) = follow(arguments, variable);
        assert!(text.contains("nothing was heard of h on the broker at 127.0.0.1:1 ("), "{arguments:?}: {text}");
    }
    for (arguments, variable, part) in [
        (
            &["--redis", url, "--password-file", file.path()][..],
            None,
            "is given twice, by the address and by --password",
        ),
        (&["--redis", url], Some("precious"), "is given twice, by the address and by SQUALL_REDIS_PASSWORD"),
        (&["--redis", "redis://h", "--password-file", empty.path()], None, "has no password in it"),
        (&["--redis", "redis://h", "--password-file", "no-such-file"], None, "cannot read the password"),
        (&["--redis", "redis://h"], Some(""), "SQUALL_REDIS_PASSWORD has no password in it"),
        (&["--redis", "redis://:precious@h:99999"], None, "write redis://HOST:PORT"),
        (&["--redis", "redis://precious@h"], None, "has a user and no password"),
    ] {
        let (status, text) = follow(arguments, variable);
        assert!(status == Some(2) && text.contains(part), "{arguments:?}: {text}");
    }
}
