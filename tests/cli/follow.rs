//! `squall follow`: its arguments, and a broker that cannot be reached.

use serde_json::Value;

use crate::{Scratch, refused, squall};

#[test]
fn a_deployment_that_cannot_be_followed_is_refused() {
    let follow = |arguments: &[&'static str]| [&["follow", "--server-name", "squall.test"], arguments].concat();
    refused(&["follow", "--redis", "redis://localhost"], "--server-name");
    refused(&["follow", "--redis", "redis://localhost", "--server-name", ""], "--server-name");
    refused(&follow(&[]), "--redis");
    for url in ["localhost", "http://localhost", "redis://", "redis://localhost:99999", ""] {
        refused(&follow(&["--redis", url]), "write redis://HOST:PORT");
    }
    refused(&follow(&["--redis", "redis+unix://run/redis.sock"]), "unix:///PATH for a socket");
    refused(&follow(&["--redis", "redis://127.0.0.1:1", "--ca-file", "ca.pem"]), "--redis rediss://HOST:PORT");
    let over_tls = |arguments: &[&'static str]| follow(&[&["--redis", "rediss://127.0.0.1:1"], arguments].concat());
    refused(&over_tls(&["--ca-file", "no-such-file.pem"]), "cannot use no-such-file.pem");
    refused(&over_tls(&["--ca-file", "Cargo.toml"]), "The file must hold certificates in PEM");
    refused(&over_tls(&["--certificate-file", "squall.pem"]), "--private-key-file");
    let known = ["--redis", "redis://127.0.0.1:1"];
    let refused_with = |arguments: &[&'static str], what| refused(&follow(&[&known, arguments].concat()), what);
    refused_with(&["--writer", "typing"], "such as typing=master");
    refused_with(&["--config", "no-such-file.toml"], "cannot read no-such-file.toml");
    refused_with(&["--for", "soon"], "is not a duration");
    refused_with(&["--dialect", "1.20"], "write 1.163 or 1.19");
    refused_with(&["--ignore", "nonsense"], "positions_meet/skipped");
    refused_with(&["--metrics", "nowhere"], "nowhere");
    refused_with(&["--record", "no-such-directory/recording.jsonl"], "no-such-directory/recording.jsonl");
    refused_with(&["--metrics", "192.0.2.1:80"], "cannot serve metrics at 192.0.2.1:80");
}

#[test]
fn a_recording_is_not_written_over() {
    let kept = Scratch::new("kept.jsonl", "precious\n");
    let url = "redis://127.0.0.1:1";
    refused(&["follow", "--redis", url, "--server-name", "squall.test", "--record", kept.path()], kept.path());
    assert_eq!(std::fs::read_to_string(kept.path()).unwrap(), "precious\n");
}

#[test]
fn no_verdict_is_given_of_what_was_not_heard() {
    let output = squall(&["follow", "--redis", "redis://127.0.0.1:1", "--server-name", "squall.test", "--for", "1s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), text.lines().last()), (Some(2), Some("verdict: nothing was heard")), "{text}");
}

#[test]
fn a_broker_that_is_not_there_is_tried_again() {
    for url in ["redis://127.0.0.1:1", "redis://no-such-host.invalid:6379"] {
        let output = squall(&["follow", "--redis", url, "--server-name", "squall.test", "--for", "1s", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        // It heard nothing, and says so.
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}{error}");
        let host = url.trim_start_matches("redis://");
        assert!(error.contains(&format!("nothing was heard of squall.test on the broker at {host} (")), "{error}");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"deaf"), Some(&"summary")), "{kinds:?}");
        let away = lines.last().unwrap()["away"]["seconds"].as_f64().unwrap();
        assert!((0.9..5.0).contains(&away), "away for {away} s of 1");
    }
}
