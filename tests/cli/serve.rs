//! `squall serve`: configurations and machines that an instance cannot be served on.

use std::path::PathBuf;

use crate::ports::free_port;
use crate::{Scratch, configuration, refused};

/// Checks that the master cannot be served with this file, and that the error contains every text in `what`.
fn not_served(file: &Scratch, more: &[&str], what: &[&str]) {
    let arguments = [&["serve", "--config", file.path(), "--instance", "master"], more].concat();
    for what in what {
        refused(&arguments, what);
    }
}

/// Returns two free ports.
fn free_ports() -> (u16, u16) {
    let held = [free_port(), free_port()];
    let [one, other] = held.each_ref().map(|held| held.local_addr().unwrap().port());
    (one, other)
}

/// The name of a database beside the configuration file. Its files are removed at the end of the test.
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
    refused(&arguments, "has no instance worker2: add it to workers, or use one of master, worker1");
    not_served(&file, &["--log-level", "lowd"], &["\"lowd\" is not a log level"]);
    not_served(&file, &["--metrics", "9192"], &["invalid value '9192'"]);
}

#[test]
fn what_another_process_has_is_named() {
    let database = Database::new("another-process");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    let (free, also_free) = free_ports();
    let port = format!("cannot listen on port {taken}");
    let remedy = "give master another port";
    let replication = Scratch::new("replication-port.toml", &configuration(&database.0, taken, free));
    not_served(&replication, &[], &[&port, remedy, replication.path()]);
    let http = Scratch::new("http-port.toml", &configuration(&database.0, free, taken));
    not_served(&http, &[], &[&port, remedy, http.path()]);
    let file = Scratch::new("free-ports.toml", &configuration(&database.0, free, also_free));
    let address = format!("127.0.0.1:{taken}");
    not_served(&file, &["--metrics", &address], &[&format!("cannot serve metrics at {address}"), "another address"]);

    let lock = std::fs::File::create(database.beside("-master.lock")).unwrap();
    lock.lock().unwrap();
    not_served(&file, &[], &["master is already running", "Stop that process first"]);
}

#[test]
fn a_database_that_cannot_be_used_is_named() {
    let (replication, http) = free_ports();
    let with = |name: &str, database: &str| Scratch::new(name, &configuration(database, replication, http));
    let nowhere = with("nowhere.toml", "no-such-folder/squall.db");
    not_served(&nowhere, &[], &["no-such-folder/squall.db", "must exist and be writable"]);

    let database = Database::new("text");
    std::fs::write(database.beside(""), "Text, and longer than the header of a file of SQLite's. ".repeat(10)).unwrap();
    let text = with("text.toml", &database.0);
    not_served(&text, &[], &[&database.0, "file is not a database", "must be a writable SQLite file"]);

    let database = Database::new("folder");
    std::fs::create_dir_all(database.beside("")).unwrap();
    let folder = with("folder.toml", &database.0);
    not_served(&folder, &[], &[&database.0, "unable to open database file", "must be a writable SQLite file"]);
    std::fs::remove_dir(database.beside("")).unwrap();
}
