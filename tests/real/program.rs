//! The program itself, as an operator runs it: processes on one configuration file and one database.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use squall::observer::process_env;
use squall::serve::File;
use squall::transport::RedisConfig;
use squall::transport::http::HttpClient;
use squall_env::Noop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::deployment::{PATIENCE, Scratch};
use crate::ports::free_port;

const SQUALL: &str = env!("CARGO_BIN_EXE_squall");

const LISTENERS: [&str; 3] = ["master", "writer1", "writer2"];
const WORKERS: [&str; 2] = ["worker1", "worker2"];

/// A machine with a configuration file: a master, two writers of events, and two workers.
pub(crate) struct Site {
    scratch: Scratch,
    file: File,
    runs: std::cell::Cell<u32>,
}

impl Site {
    pub(crate) fn new(test: &str, redis: Option<RedisConfig>) -> Self {
        let scratch = Scratch::new(test);
        let mut text = format!(
            "server_name = 'squall.test'\nsecret = 'replsecret'\ndatabase = 'squall.db'\nworkers = {WORKERS:?}\n\
             [stream_writers]\nevents = ['writer1', 'writer2']\n"
        );
        // All ports are held until the last one is drawn, so that no two are the same.
        let mut held: Vec<TcpListener> = Vec::new();
        let mut port = || {
            held.push(free_port());
            held.last().unwrap().local_addr().unwrap().port()
        };
        for name in LISTENERS {
            let (replication, http) = (port(), port());
            let _ = writeln!(text, "[instance_map.{name}]\nhost = '127.0.0.1'");
            let _ = writeln!(text, "replication_port = {replication}\nhttp_port = {http}");
        }
        text.push_str("[metrics]\n");
        for name in LISTENERS.into_iter().chain(WORKERS) {
            let _ = writeln!(text, "{name} = '127.0.0.1:{}'", port());
        }
        if let Some(redis) = redis {
            let _ = writeln!(text, "[redis]\nhost = '{}'\nport = {}", redis.host, redis.port);
        }
        let path = scratch.path().join("squall.toml");
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Site { scratch, file: File::load(&path).unwrap(), runs: Default::default() }
    }

    pub(crate) fn has_broker(&self) -> bool {
        self.file.config.redis.is_some()
    }

    /// Starts `name` and waits until its health check succeeds.
    pub(crate) async fn start(&self, name: &'static str) -> Program {
        healthy(self.launch(name)).await
    }

    /// Starts `name`.
    pub(crate) fn launch(&self, name: &'static str) -> Program {
        self.launch_logged(program(), name, "squall::serve=trace,info")
    }

    /// Starts `name` as a process that may open so many files, and waits until its health check succeeds.
    pub(crate) async fn start_with_open_files(&self, name: &'static str, open_files: usize) -> Program {
        healthy(self.launch_logged(program_after(&format!("ulimit -n {open_files}")), name, "info")).await
    }

    /// Starts `name`, whose files may be [limited](Program::limit_files) later, and waits until its health check succeeds.
    #[cfg(target_os = "linux")]
    pub(crate) async fn start_limitable(&self, name: &'static str) -> Program {
        // The signal of a write beyond the limit would end the process.
        healthy(self.launch_logged(program_after("trap '' XFSZ"), name, "info")).await
    }

    fn launch_logged(&self, command: Command, name: &'static str, level: &str) -> Program {
        let run = self.runs.replace(self.runs.get() + 1);
        let log = self.scratch.path().join(format!("{run}-{name}.log"));
        let stderr = std::fs::File::create(&log).unwrap();
        self.launch_with(command, name, level, log, stderr.into())
    }

    /// Starts `name` with a log that is not read, and waits until its health check succeeds. The second value is the end
    /// from which the log could be read.
    pub(crate) async fn start_unread(&self, name: &'static str) -> (Program, std::io::PipeReader) {
        let (unread, log) = std::io::pipe().unwrap();
        let program = self.launch_with(program(), name, "trace", PathBuf::from("/dev/null"), log.into());
        (healthy(program).await, unread)
    }

    fn launch_with(
        &self,
        mut command: Command,
        name: &'static str,
        level: &str,
        log: PathBuf,
        stderr: Stdio,
    ) -> Program {
        let metrics_port = self.file.metrics_of(&name.into()).unwrap().port();
        command.arg("serve").arg("--config").arg(&self.file.path).args(["--instance", name]);
        command.args(["--log", "json", "--log-level", level]);
        let child = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        Program { name, child, log, metrics_port }
    }

    /// Returns the path of the database.
    pub(crate) fn database(&self) -> &Path {
        &self.file.database
    }

    /// Returns the port of the line protocol of `name`.
    pub(crate) fn replication_port(&self, name: &str) -> u16 {
        self.file.config.instance_map[name].replication_port
    }

    /// Returns the port of HTTP requests of `name`.
    pub(crate) fn http_port(&self, name: &str) -> u16 {
        self.file.config.instance_map[name].http_port
    }

    /// Lets every user of this machine read the configuration.
    #[cfg(unix)]
    pub(crate) fn let_all_read(&self) {
        std::fs::set_permissions(&self.file.path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    }

    /// Returns the folder of the configuration file.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Lets later starts of instances use this database, a path from the folder of the configuration file.
    pub(crate) fn use_database(&mut self, database: &str) {
        let text = std::fs::read_to_string(&self.file.path).unwrap();
        let is_setting = |line: &&str| line.starts_with("database = ");
        let before = text.lines().find(is_setting).unwrap();
        std::fs::write(&self.file.path, text.replace(before, &format!("database = '{database}'"))).unwrap();
        self.file = File::load(&self.file.path).unwrap();
    }

    /// Returns a client that sends write requests to the instances and is no instance itself.
    pub(crate) fn client(&self) -> HttpClient {
        let env = process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop));
        let config = &self.file.config;
        HttpClient::new(env, "outside".into(), config.http_addresses(), config.secret.clone())
    }

    /// Returns a room whose events `writer` persists.
    pub(crate) fn room_of(&self, writer: &str) -> String {
        let mut rooms = (0..).map(|number| format!("!room{number}:squall.test"));
        rooms.find(|room| self.file.config.events_writer_of(room).as_str() == writer).unwrap()
    }

    fn query<T>(&self, sql: &str, read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let database = rusqlite::Connection::open(&self.file.database).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        let rows: rusqlite::Result<Vec<T>> = database.prepare(sql).unwrap().query_map((), read).unwrap().collect();
        rows.unwrap()
    }

    /// Returns the ids of all events in the database.
    pub(crate) fn event_ids(&self) -> Vec<String> {
        self.query("SELECT event_id FROM events", |row| row.get(0))
    }

    /// Returns the types of all account data in the database.
    pub(crate) fn account_data_kinds(&self) -> Vec<String> {
        self.query("SELECT account_data_type FROM account_data", |row| row.get(0))
    }

    /// Returns the tokens of all rows in the database that the tests write, ascending, by stream and writer.
    pub(crate) fn tokens(&self) -> BTreeMap<String, Vec<i64>> {
        let sql = "SELECT 'events', instance_name, stream_ordering AS token FROM events
                   UNION ALL SELECT 'account_data', instance_name, stream_id FROM account_data ORDER BY token";
        let mut tokens: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let rows = self.query(sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        for (stream, writer, token) in rows {
            let (stream, writer): (String, String) = (stream, writer);
            tokens.entry(format!("{stream} {writer}")).or_default().push(token);
        }
        tokens
    }
}

/// One writer's rows of one stream, as one run of a process logged them.
#[derive(Debug, Default)]
pub(crate) struct LoggedRows {
    /// The position at which the run began to follow.
    pub from: i64,
    /// The tokens that the run applied.
    pub applied: Vec<i64>,
}

/// The memory and the files of a process. Both are 0 where the system has no `/proc`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resources {
    /// The resident memory, in KiB.
    pub kib: u64,
    /// The number of open files.
    pub files: usize,
}

impl Resources {
    /// Checks that it holds about as much as it did before.
    pub(crate) fn assert_not_above(&self, before: &Resources, name: &str) {
        assert!(self.kib <= before.kib + before.kib / 10 + 4_096, "{name} has grown from {before:?} to {self:?}");
        assert!(self.files <= before.files + 10, "{name} has grown from {before:?} to {self:?}");
    }
}

/// A running `squall serve`. Dropping it kills the process.
pub(crate) struct Program {
    pub name: &'static str,
    child: Child,
    log: PathBuf,
    metrics_port: u16,
}

impl Program {
    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Limits the length of the files that the process writes: to `bytes`, or not at all if that is `unlimited`.
    #[cfg(target_os = "linux")]
    pub(crate) fn limit_files(&self, bytes: &str) {
        let limit = format!("--fsize={bytes}:unlimited");
        let limited = Command::new("prlimit").args(["--pid", &self.child.id().to_string(), &limit]).status();
        assert!(limited.unwrap().success());
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(&self.child, signal);
    }

    /// Sends a signal and waits for the end.
    pub(crate) async fn stop(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the process ends in time after the signal")
    }

    /// Returns the port of the metrics.
    pub(crate) fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Returns the text of the log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Returns the last lines of the log, without those about rows.
    pub(crate) fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("\"TRACE\"")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Returns the memory and the files that the process holds.
    pub(crate) fn resources(&self) -> Resources {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.map_or(0, |text| text.trim().trim_end_matches(" kB").parse().unwrap());
        Resources { kib, files: std::fs::read_dir(folder.join("fd")).map_or(0, Iterator::count) }
    }

    /// Returns the rows in the log, by stream and writer.
    pub(crate) fn logged(&self) -> BTreeMap<String, LoggedRows> {
        let mut logged: BTreeMap<String, LoggedRows> = BTreeMap::new();
        // The last line of a process that was killed may be half a line.
        for line in self.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let text = |key: &str| line[key].as_str().unwrap_or_default();
            let source = format!("{} {}", text("stream"), text("writer"));
            match (text("message"), line["token"].as_i64()) {
                ("following", Some(token)) => logged.entry(source).or_default().from = token,
                ("applied", Some(token)) => logged.entry(source).or_default().applied.push(token),
                _ => {}
            }
        }
        logged
    }

    async fn ask(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
    }

    /// Sends a request to the metrics port and returns the response.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.ask(path).await.unwrap()
    }

    /// Returns the value of the metric with these label values, in their order. Returns 0 if there is none.
    pub(crate) async fn value(&self, metric: &str, labels: &[&str]) -> i64 {
        let (_, text) = self.get("/metrics").await;
        let values = |line: &str| -> Vec<String> { line.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
        let is_of_metric = |line: &str| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let is_it = |line: &&str| is_of_metric(line) && values(line) == labels;
        text.lines().find(is_it).map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    /// Returns the number of received commands of this name.
    pub(crate) async fn received(&self, command: &str) -> i64 {
        self.value("squall_lines_received_total", &[command]).await
    }

    /// Waits until the metric with these label values has reached `at_least`.
    async fn gets(&self, metric: &str, labels: &[&str], at_least: i64) {
        self.gets_within(PATIENCE, metric, labels, at_least).await;
    }

    async fn gets_within(&self, patience: Duration, metric: &str, labels: &[&str], at_least: i64) {
        let there = async {
            while self.value(metric, labels).await < at_least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let is_there = tokio::time::timeout(patience, there).await.is_ok();
        let (_, text) = self.get("/metrics").await;
        let said: Vec<&str> = text.lines().filter(|line| line.starts_with(metric)).collect();
        let log = if is_there { String::new() } else { self.tail() };
        assert!(is_there, "{}: {metric} {labels:?} stays below {at_least}: {said:#?}\n{log}", self.name);
    }

    /// Waits so long until the process has applied `writer`'s rows of `stream` up to `token`.
    pub(crate) async fn reaches(&self, patience: Duration, stream: &str, writer: &str, token: i64) {
        self.gets_within(patience, "squall_position", &[stream, writer], token).await;
    }

    /// Waits until so many commands of this name have been received.
    pub(crate) async fn receives(&self, command: &str, count: i64) {
        self.gets("squall_lines_received_total", &[command], count).await;
        assert_eq!(self.received(command).await, count);
    }

    /// Waits until the connection to `target` is set up.
    pub(crate) async fn is_set_up_with(&self, target: &str) {
        self.gets("squall_connections_set_up_total", &[target], 1).await;
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the health check of the process succeeds.
async fn healthy(mut program: Program) -> Program {
    let healthy = async {
        loop {
            let answer = program.ask("/health").await;
            if answer.is_ok_and(|(status, _)| status == 200) {
                return;
            }
            if let Some(status) = program.child.try_wait().unwrap() {
                panic!("{} ended with {status}: {}", program.name, program.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let is_healthy = tokio::time::timeout(PATIENCE, healthy).await.is_ok();
    assert!(is_healthy, "{} did not become healthy: {}", program.name, program.log());
    program
}

/// Returns a command that runs the program.
fn program() -> Command {
    Command::new(SQUALL)
}

/// Returns a command that runs the program after this command of a shell.
fn program_after(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{command} && exec \"$0\" \"$@\""), SQUALL]);
    shell
}

/// Sends a signal to a process. `signal` is a name that the program `kill` accepts, such as `TERM`.
pub(crate) fn send_signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}
