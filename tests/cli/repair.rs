//! `squall repair`.

use rusqlite::Connection;

use super::{Scratch, refused, squall};

/// Runs `squall` with these arguments, and returns what it prints.
fn printed(arguments: &[&str]) -> String {
    let output = squall(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The configuration of a deployment whose database is at `database`.
fn config(database: &str) -> String {
    format!(
        "server_name = \"squall.test\"\nsecret = \"s\"\ndatabase = \"{database}\"\n[instance_map.master]\n\
         host = \"127.0.0.1\"\nreplication_port = 1\nhttp_port = 2\n"
    )
}

#[test]
fn a_poisoned_position_is_named_at_the_start_and_repaired() {
    let database = Scratch::new("repair.db", "");
    let config = Scratch::new("repair.toml", &config(database.path()));
    let arguments = ["repair", "--config", config.path()];
    assert_eq!(printed(&arguments), "no position is past the last id of its stream: nothing to repair\n");

    let poison = "INSERT INTO sequences (name, last_value) VALUES ('events_stream_seq', 5);
        INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES ('events', 'master', 1000000);";
    Connection::open(database.path()).unwrap().execute_batch(poison).unwrap();
    let serve = ["serve", "--config", config.path(), "--instance", "master"];
    refused(&serve, "master has announced 1000000 on events");
    refused(&serve, "squall repair --config");

    let would = printed(&["repair", "--config", config.path(), "--dry-run"]);
    assert_eq!(would, "events of master: 1000000 would be lowered to 5, the last id\n");
    assert_eq!(printed(&arguments), "events of master: 1000000 was lowered to 5, the last id\n");
    assert_eq!(printed(&arguments), "no position is past the last id of its stream: nothing to repair\n");
    for suffix in ["-wal", "-shm", "-master.lock"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.path()));
    }
}

#[test]
fn a_deployment_that_has_never_run_has_nothing_to_repair() {
    let config = Scratch::new("repair-none.toml", &config("/nonexistent/squall.db"));
    refused(&["repair", "--config", config.path()], "there is no database at /nonexistent/squall.db");
}
