//! `squall follow` as an operator runs it.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

use crate::deployment::{PATIENCE, Scratch};
use crate::follow::{Publisher, SERVER_NAME};
use crate::ports::free_port;
use crate::schema;
use crate::server::{Kind, Server, on_both};

on_both! {
    findings_and_gaps_are_reported;
    without_findings_it_exits_with_status_0;
    a_deployment_that_says_nothing_is_reported;
}

/// Returns a command that runs `squall` with these arguments. A password in this process's environment is not passed on.
pub(crate) fn command(arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_squall"));
    command.args(arguments).env_remove("SQUALL_REDIS_PASSWORD");
    command
}

/// A running `squall follow` and the lines that it prints. Dropping it kills the process.
pub(crate) struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        Self::follow(&format!("redis://:secret@127.0.0.1:{}", server.port), arguments)
    }

    pub(crate) fn follow(url: &str, arguments: &[&str]) -> Self {
        Self::run(&[&["--redis", url, "--server-name", SERVER_NAME], arguments].concat(), &[])
    }

    /// Runs `squall follow` with these arguments and variables of the environment.
    pub(crate) fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(&[&["follow"], arguments].concat());
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Program { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("squall follow prints a line in time").unwrap().expect("squall follow still runs")
    }

    /// Returns the next JSON object of this kind. Skips the objects before it, and checks the form of all of them.
    pub(crate) async fn next_object(&mut self, kind: &str) -> Value {
        let schema = serde_json::from_str(include_str!("../../docs/schemas/follow.json")).unwrap();
        loop {
            let object: Value = serde_json::from_str(&self.line().await).unwrap();
            let differences = schema::differences(&schema, &object);
            assert!(differences.is_empty(), "{object}: {differences:#?}");
            if object["kind"] == kind {
                return object;
            }
        }
    }

    async fn ends(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        status.expect("squall follow ends in time").unwrap().code()
    }
}

async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn findings_and_gaps_are_reported(kind: Kind) {
    let mut server = Server::start(kind, Some("secret")).await;
    let scratch = Scratch::new(&format!("follow-program-{kind:?}"));
    let recording = scratch.path().join("recording.jsonl");
    let recording = recording.to_str().unwrap();
    let port = TcpListener::local_addr(&free_port()).unwrap().port();
    let metrics = format!("127.0.0.1:{port}");
    let mut program =
        Program::start(&server, &["--json", "--record", recording, "--metrics", &metrics, "--send-replicate"]);
    program.next_object("listening").await;
    let mut publisher = Publisher::connect(&server).await;
    publisher.authenticate("secret").await;
    for writer in ["a", "b"] {
        publisher.publish(&format!("POSITION typing {writer} 7 7")).await;
    }
    let finding = program.next_object("finding").await;
    let second_writer = json!("one_writer/typing/second_writer");
    assert_eq!((&finding["fingerprint"], &finding["detail"]["first"]), (&second_writer, &json!("a")));
    let counted = async {
        let samples = [
            "squall_follow_findings_total{class=\"loss\",kind=\"second_writer\",rule=\"one_writer\",stream=\"typing\"} 1",
            "squall_follow_position{stream=\"typing\",writer=\"b\"} 7",
            "squall_follow_unsent_tokens{stream=\"typing\",writer=\"b\"} 0",
            "squall_follow_listening 1",
        ];
        loop {
            let text = get(port, "/metrics").await;
            if samples.iter().all(|sample| text.contains(sample)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("the metrics count the finding");
    assert!(get(port, "/health").await.starts_with("HTTP/1.1 200 "));

    server.kill().await;
    program.next_object("deaf").await;
    assert!(get(port, "/health").await.starts_with("HTTP/1.1 503 "));
    server.start_again().await;
    let away = program.next_object("away").await;
    assert_eq!(away["why"], "closed by the broker");
    program.next_object("listening").await;

    let sent = Command::new("kill").args(["-INT", &program.child.id().unwrap().to_string()]).status();
    assert!(sent.unwrap().success());
    let summary = program.next_object("summary").await;
    assert_eq!(summary["findings"], json!({ "one_writer/typing/second_writer": 1 }));
    assert_eq!(summary["classes"], json!({ "loss": 1, "load": 0, "habit": 0 }));
    assert_eq!(finding["class"], "loss");
    assert_eq!((&summary["away"]["times"], &summary["tally"]["commands"]["REPLICATE"]), (&json!(1), &json!(1)));
    assert_eq!(program.ends().await, Some(1));

    let audited = command(&["audit", "--json", recording]).output().await.unwrap();
    assert_eq!(audited.status.code(), Some(1), "{}", String::from_utf8_lossy(&audited.stderr));
    let report: Value = serde_json::from_slice(&audited.stdout).unwrap();
    let [violation] = report["violations"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&violation["fingerprint"], &violation["line"]), (&second_writer, &finding["line"]));
    assert_eq!((report["away"].as_array().unwrap().len(), &report["checks"]), (1, &summary["checks"]));
}

async fn without_findings_it_exits_with_status_0(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let mut program = Program::start(&server, &["--for", "2s"]);
    assert!(
        program
            .line()
            .await
            .ends_with(&format!("listening to {SERVER_NAME} on the broker at 127.0.0.1:{}", server.port))
    );
    let mut publisher = Publisher::connect(&server).await;
    publisher.authenticate("secret").await;
    publisher.publish("POSITION typing a 7 7").await;
    let mut rest = Vec::new();
    while let Ok(Some(line)) = program.lines.next_line().await {
        rest.push(line);
    }
    assert_eq!(program.ends().await, Some(0), "{rest:?}");
    assert_eq!(rest[1], "1 of 1 payloads parsed: POSITION 1", "{rest:?}");
    assert_eq!(rest.last().unwrap(), "verdict: no findings");

    // A missing password is reported with the remedy.
    let wrong = format!("redis://127.0.0.1:{}", server.port);
    let output = command(&["follow", "--redis", &wrong, "--server-name", SERVER_NAME]).output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("redis://:PASSWORD@HOST:PORT"), "{error}");
}

async fn a_deployment_that_says_nothing_is_reported(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let url = format!("redis://:secret@127.0.0.1:{}", server.port);
    let follow = async |arguments: &[&str]| {
        let follow = ["follow", "--redis", &url, "--server-name", "another.test", "--for", "12s"];
        let output = command(&[&follow, arguments].concat()).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("nothing was heard of another.test on the broker at 127.0.0.1:"), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (silent, unanswered) = tokio::join!(follow(&[]), follow(&["--send-replicate"]));
    assert!(silent.contains("nothing was heard of another.test for 10 s. Check the server name"), "{silent}");
    let expected = "no instance of another.test answered the REPLICATE within 10 s. Check the server name";
    assert!(unanswered.contains(expected), "{unanswered}");
}
