//! The command line: what it refuses, and that what it prints can be used.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn squall(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_squall")).args(arguments).output().expect("squall runs")
}

/// Checks that the arguments are refused with status 2 and an error that says `what`.
fn refused(arguments: &[&str], what: &str) {
    let output = squall(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} printed {error}");
    assert!(error.contains(what), "{arguments:?} printed {error}");
    assert!(output.stdout.is_empty());
}

/// A file that is gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("squall-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn plan() -> String {
    String::from_utf8(squall(&["plan", "--seed", "3"]).stdout).unwrap()
}

#[test]
fn an_unknown_scenario_or_engine_is_refused() {
    refused(&["run", "--scenario", "drizzle"], "storm");
    refused(&["soak", "--seeds", "0..2", "--scenario", "drizzle"], "storm");
    refused(&["run", "--engine", "steam"], "turmoil-net");
}

#[test]
fn a_run_on_the_other_engine_says_so_and_is_repeated_there() {
    let json = |arguments: &[&str]| serde_json::from_slice::<Value>(&squall(arguments).stdout).unwrap();
    let repeated = "cargo run --release -- run --engine turmoil --scenario storm --seed 3";
    for command in [&["run", "--seed", "3", "--json"][..], &["soak", "--seeds", "3..4", "--json"]] {
        let verdict = json(&[command, &["--engine", "turmoil"]].concat());
        assert_eq!((&verdict["engine"], &verdict["reproduction"]), (&"turmoil".into(), &repeated.into()));
        assert!(verdict["faults_skipped"].as_u64().unwrap() > 0);
        let verdict = json(command);
        assert_eq!((&verdict["engine"], &verdict["faults_skipped"]), (&"turmoil-net".into(), &0.into()));
    }
}

#[test]
fn a_seed_that_is_no_number_is_refused() {
    refused(&["run", "--seed", "x"], "invalid value 'x'");
    refused(&["run", "--seed", "-1"], "-1");
}

#[test]
fn an_empty_or_backward_range_is_refused() {
    refused(&["soak", "--seeds", "5..5"], "has no seeds");
    refused(&["soak", "--seeds", "7..3"], "has no seeds");
    refused(&["soak", "--seeds", "7"], "write A..B");
    refused(&["soak", "--seeds", "a..b"], "is no seed");
    refused(&["soak", "--seeds", "0..2", "--jobs", "0"], "0");
}

#[test]
fn a_plan_file_that_cannot_be_used_is_refused_by_name() {
    refused(&["run", "--plan", "no-such-file.json"], "no-such-file.json");
    let malformed = Scratch::new("malformed.json", "{\"format\": 1,\n");
    refused(&["run", "--plan", malformed.path()], malformed.path());
    let newer = Scratch::new("newer.json", &plan().replacen("\"format\": 1", "\"format\": 99", 1));
    refused(&["run", "--plan", newer.path()], "99");
}

#[test]
fn a_printed_plan_runs_as_its_seed_does() {
    let json = |arguments: &[&str]| -> Value {
        let output = squall(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let printed = Scratch::new("printed.json", &plan());
    let by_plan = json(&["run", "--plan", printed.path(), "--json"]);
    let by_seed = json(&["run", "--seed", "3", "--json"]);
    assert_eq!(by_plan["trace_hash"], by_seed["trace_hash"]);
    assert_eq!(by_plan["verdict"], "passed");
}

#[test]
fn a_plan_runs_as_it_was_edited() {
    let mut edited: Value = serde_json::from_str(&plan()).unwrap();
    edited["operations"] = serde_json::json!([{ "at_ms": 10_000, "kind": { "send": { "room": 1 } } }]);
    edited["faults"] = serde_json::json!([]);
    edited["clients"] = serde_json::json!([]);
    let edited = Scratch::new("edited.json", &edited.to_string());
    let output = squall(&["run", "--plan", edited.path(), "--json"]);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&verdict["rows_committed"], &verdict["faults"]), (&Value::from(1), &Value::from(0)));
}

#[test]
fn what_was_found_once_is_replayed_by_its_file() {
    let files = ["seeds/row_found_at_the_start.json", "seeds/position_over_a_row.json"];
    let output = squall(&["replay", "--json", files[0], files[1]]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stdout).unwrap();
    let replayed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replayed.len(), 2);
    for (replayed, file) in replayed.iter().zip(files) {
        assert_eq!(file, format!("seeds/{}.json", replayed["name"].as_str().unwrap()));
        assert_eq!((&replayed["verdict"], &replayed["catches"]), (&"passed".into(), &"no_missed_rows".into()));
        assert_eq!(replayed["reproduction"], format!("cargo run --release -- replay {file}"));
    }
}

/// An entry of the corpus whose plan fails: a storm that is over before the hosts have started leaves more to be done
/// than a calm has time for.
fn failing_entry() -> Value {
    let text = std::fs::read_to_string("seeds/row_found_at_the_start.json").unwrap();
    let mut entry: Value = serde_json::from_str(&text).unwrap();
    entry["plan"]["network"] = serde_json::json!({ "latency_us_min": 40_000_000, "latency_us_max": 50_000_000 });
    entry
}

#[test]
fn a_plan_that_fails_is_shrunk_and_kept_as_an_entry_that_fails_too() {
    let plan = Scratch::new("failing.json", &failing_entry()["plan"].to_string());
    let least = Scratch::new("least.json", "");
    let shrunk =
        ["shrink", "--plan", plan.path(), "--failure", "stuck", "--runs", "30", "--json", "--out", least.path()];
    let output = squall(&shrunk);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert!(report["runs"].as_u64().unwrap() <= 30 && report["fingerprint"].as_str().unwrap().starts_with("stuck/"));
    assert!(report["hosts"].as_u64() < Some(6) && report["faults"] == 0, "there is less of it: {report}");
    let replayed = squall(&["replay", "--json", least.path()]);
    assert_eq!(replayed.status.code(), Some(1));
    let replayed: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!((&replayed["catches"], &replayed["verdict"]), (&"stuck".into(), &"stuck".into()));
}

#[test]
fn a_run_that_fails_is_shrunk_by_itself_and_its_last_line_repeats_it() {
    let directory = std::env::temp_dir().join(format!("squall-{}-found", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let plan = Scratch::new("fails.json", &failing_entry()["plan"].to_string());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
        let output = command.args(["run", "--plan", plan.path()]).args(arguments).current_dir(&directory).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let kept = || std::fs::read_dir(directory.join("found")).map_or(0, |files| files.count());
    let last = format!("cargo run --release -- run --plan {}", plan.path());
    let printed = run(&["--shrink-runs", "0"]);
    assert_eq!((printed.lines().last(), kept()), (Some(&*last), 0), "{printed}");
    let printed = run(&["--shrink-runs", "3"]);
    assert!(printed.contains("shrunk in 3 runs, where the budget ended") && printed.contains("#[test]"), "{printed}");
    assert_eq!((printed.lines().last(), kept()), (Some(&*last), 1), "{printed}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_plan_that_does_not_fail_is_not_shrunk() {
    let text = std::fs::read_to_string("seeds/row_found_at_the_start.json").unwrap();
    let entry: Value = serde_json::from_str(&text).unwrap();
    let plan = Scratch::new("passing.json", &entry["plan"].to_string());
    refused(&["shrink", "--plan", plan.path()], "does not fail");
    refused(&["defects", "no_such_defect"], "no_such_defect");
}

#[test]
fn a_replay_that_fails_tells_the_story() {
    let entry = failing_entry();
    let entry = Scratch::new("entry.json", &entry.to_string());
    let output = squall(&["replay", entry.path()]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("stuck") && printed.contains("pending:"), "{printed}");
    assert!(printed.contains(&format!("cargo run --release -- replay {}", entry.path())), "{printed}");
}

#[test]
fn a_file_that_is_no_entry_of_the_corpus_is_refused_by_name() {
    refused(&["replay"], "FILE");
    refused(&["replay", "no-such-file.json"], "no-such-file.json");
    let plan = Scratch::new("no-entry.json", &plan());
    refused(&["replay", "seeds/row_found_at_the_start.json", plan.path()], plan.path());
}

const RECORDINGS: [&str; 2] = ["tests/data/redis_traffic.jsonl.gz", "tests/data/tcp_1.19.1.txt.gz"];

/// The exit status, one JSON object for each line of the output, and the errors.
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
fn an_audit_for_a_reader_groups_what_it_found() {
    let output = squall(&["audit", RECORDINGS[1]]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("2271 of 2271 payloads parsed: PING 1, POSITION 16, RDATA 2253, SERVER 1\n"), "{text}");
    let finding = text.lines().find(|line| line.starts_with("tokens_ascend/caches/repeated")).expect(&text);
    assert_eq!(finding.split_whitespace().take(3).collect::<Vec<_>>(), ["tokens_ascend/caches/repeated", "3", "2095"]);
}

#[test]
fn a_recording_without_findings_is_all_well() {
    let recording = Scratch::new("clean.txt", "SERVER h\nPOSITION typing a 1 1\nRDATA typing a 2 [\"!r\",[]]\n");
    let (status, reports, _) = audited(&[recording.path()]);
    assert_eq!((status, &reports[0]["violations"]), (Some(0), &serde_json::json!([])));
}

#[test]
fn whoever_names_a_dialect_is_believed() {
    let (status, reports, _) = audited(&["--dialect", "1.163", RECORDINGS[1]]);
    let not_positions = Value::from(2_271 - 16);
    assert_eq!((status, &reports[0]["parsed"]), (Some(1), &not_positions));
}

#[test]
fn what_cannot_be_read_of_recordings_is_told_and_keeps_nothing_else_from_being_judged() {
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
fn an_audit_of_nothing_or_by_an_unknown_dialect_is_refused() {
    refused(&["audit"], "CAPTURE");
    refused(&["audit", "--dialect", "1.20", RECORDINGS[0]], "write 1.163 or 1.19");
    refused(&["audit", "no-such-file.gz"], "no-such-file.gz");
}

/// A configuration file of a master with this database and these ports, which the test may go on with.
fn configuration(database: &str, replication_port: u16, http_port: u16) -> String {
    format!(
        "server_name = 'squall.test'\nsecret = 'replsecret'\ndatabase = '{database}'\n[instance_map.master]\n\
         host = '127.0.0.1'\nreplication_port = {replication_port}\nhttp_port = {http_port}\n",
    )
}

/// Checks that the master is not served as this file says, and that the error says all of `what`.
fn not_served(file: &Scratch, more: &[&str], what: &[&str]) {
    let arguments = [&["serve", "--config", file.path(), "--instance", "master"], more].concat();
    what.iter().for_each(|what| refused(&arguments, what));
}

/// Two ports that nobody has.
fn free_ports() -> (u16, u16) {
    let held = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, other] = held.each_ref().map(|held| held.local_addr().unwrap().port());
    (one, other)
}

/// The name of a database beside the configuration file, which is gone with everything beside it when the test is over.
struct Database(String);

impl Database {
    fn new(test: &str) -> Self {
        Database(format!("squall-{}-{test}.db", std::process::id()))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        std::env::temp_dir().join(format!("{}{suffix}", self.0))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-master.lock"] {
            let _ = std::fs::remove_file(self.beside(suffix));
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_name() {
    let whole = configuration("squall.db", 1, 2);
    refused(&["serve", "--instance", "master"], "--config");
    refused(&["serve", "--config", "no-such-file.toml", "--instance", "master"], "cannot read no-such-file.toml");
    let file = Scratch::new("unknown.toml", &format!("wokers = ['worker1']\n{whole}"));
    not_served(&file, &[], &[file.path(), "line 1", "wokers", "workers"]);
    let file = Scratch::new("incomplete.toml", "server_name = 'squall.test'\n");
    not_served(&file, &[], &[file.path(), "missing field `secret`"]);
    let file = Scratch::new("addressless.toml", &format!("{whole}[stream_writers]\ntyping = 'typer'\n"));
    not_served(&file, &[], &[file.path(), "typer writes a stream", "add it to instance_map"]);
    let file = Scratch::new("others.toml", &format!("workers = ['worker1']\n{whole}"));
    let arguments = ["serve", "--config", file.path(), "--instance", "worker2"];
    refused(&arguments, "has no instance worker2: add it to workers, or take one of master, worker1");
    not_served(&file, &["--log-level", "lowd"], &["\"lowd\" is no level"]);
    not_served(&file, &["--metrics", "9192"], &["invalid value '9192'"]);
}

#[test]
fn what_another_process_has_is_named() {
    let database = Database::new("another-process");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    let (free, also_free) = free_ports();
    let (port, remedy) = (format!("cannot listen on port {taken}"), "give master another one");
    let replication = Scratch::new("replication-port.toml", &configuration(&database.0, taken, free));
    not_served(&replication, &[], &[&port, remedy, replication.path()]);
    let http = Scratch::new("http-port.toml", &configuration(&database.0, free, taken));
    not_served(&http, &[], &[&port, remedy, http.path()]);
    let file = Scratch::new("free-ports.toml", &configuration(&database.0, free, also_free));
    let address = format!("127.0.0.1:{taken}");
    not_served(&file, &["--metrics", &address], &[&format!("cannot serve metrics at {address}"), "another address"]);

    let lock = std::fs::File::create(database.beside("-master.lock")).unwrap();
    lock.lock().unwrap();
    not_served(&file, &[], &["master is running already", "Stop that one first"]);
}

#[test]
fn a_database_that_cannot_be_used_is_named() {
    let (replication, http) = free_ports();
    let with = |name: &str, database: &str| Scratch::new(name, &configuration(database, replication, http));
    let nowhere = with("nowhere.toml", "no-such-folder/squall.db");
    not_served(&nowhere, &[], &["no-such-folder/squall.db", "has to be there, and be writable"]);

    let database = Database::new("text");
    std::fs::write(database.beside(""), "Text, and longer than the header of a file of SQLite's. ".repeat(10)).unwrap();
    let text = with("text.toml", &database.0);
    not_served(&text, &[], &[&database.0, "file is not a database", "has to be a writable SQLite file"]);

    let database = Database::new("folder");
    std::fs::create_dir_all(database.beside("")).unwrap();
    let folder = with("folder.toml", &database.0);
    not_served(&folder, &[], &[&database.0, "unable to open database file", "has to be a writable SQLite file"]);
    std::fs::remove_dir(database.beside("")).unwrap();
}

#[test]
fn a_deployment_that_cannot_be_followed_is_refused() {
    let follow = |arguments: &[&'static str]| [&["follow", "--server-name", "squall.test"], arguments].concat();
    refused(&["follow", "--redis", "redis://localhost"], "--server-name");
    refused(&["follow", "--redis", "redis://localhost", "--server-name", ""], "--server-name");
    refused(&follow(&[]), "--redis");
    for url in ["localhost", "http://localhost", "redis://", "redis://localhost:99999", ""] {
        refused(&follow(&["--redis", url]), "write redis://HOST:PORT");
    }
    refused(&follow(&["--redis", "unix:///run/redis.sock"]), "only Redis over TCP");
    refused(&follow(&["--redis", "redis://127.0.0.1:1", "--ca-file", "ca.pem"]), "write rediss://");
    let over_tls = |arguments: &[&'static str]| follow(&[&["--redis", "rediss://127.0.0.1:1"], arguments].concat());
    refused(&over_tls(&["--ca-file", "no-such-file.pem"]), "cannot use no-such-file.pem");
    refused(&over_tls(&["--ca-file", "Cargo.toml"]), "It has to be a file with certificates in PEM");
    refused(&over_tls(&["--certificate-file", "squall.pem"]), "--private-key-file");
    let known = ["--redis", "redis://127.0.0.1:1"];
    let refused_with = |arguments: &[&'static str], what| refused(&follow(&[&known, arguments].concat()), what);
    refused_with(&["--writer", "typing"], "such as typing=master");
    refused_with(&["--config", "no-such-file.toml"], "cannot read no-such-file.toml");
    refused_with(&["--for", "soon"], "is no duration");
    refused_with(&["--dialect", "1.20"], "write 1.163 or 1.19");
    refused_with(&["--metrics", "nowhere"], "nowhere");
    refused_with(&["--record", "no-such-directory/recording.jsonl"], "no-such-directory/recording.jsonl");
    refused_with(&["--metrics", "192.0.2.1:80"], "cannot serve metrics at 192.0.2.1:80");
}

#[test]
fn a_configuration_says_who_writes_what() {
    let lines = ["POSITION events writer1 1 1", "POSITION typing typist 1 1", "POSITION pushers anybody 1 1"];
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
    let (events, typing) = ("one_writer/events/not_its_writer", "one_writer/typing/not_its_writer");
    assert_eq!(kinds(&["--config", file.path()]), [events, typing]);
    assert_eq!(kinds(&["--config", file.path(), "--writer", "typing=typist"]), [events]);
    assert_eq!(kinds(&["--writer", "typing=master", "--writer", "events=writer1"]), [typing]);
}

#[test]
fn a_recording_is_not_written_over() {
    let kept = Scratch::new("kept.jsonl", "precious\n");
    let url = "redis://127.0.0.1:1";
    refused(&["follow", "--redis", url, "--server-name", "squall.test", "--record", kept.path()], kept.path());
    assert_eq!(std::fs::read_to_string(kept.path()).unwrap(), "precious\n");
}

#[test]
fn a_broker_that_is_not_there_is_tried_again() {
    for url in ["redis://127.0.0.1:1", "redis://no-such-host.invalid:6379"] {
        let output = squall(&["follow", "--redis", url, "--server-name", "squall.test", "--for", "1s", "--json"]);
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&output.stderr));
        let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = told.iter().map(|told| told["kind"].as_str().unwrap()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"deaf"), Some(&"summary")), "{kinds:?}");
        let away = told.last().unwrap()["away"]["seconds"].as_f64().unwrap();
        assert!((0.9..5.0).contains(&away), "away for {away} s of 1");
    }
}
