//! A database that cannot be written: the health check, the metrics, the log and the answers to clients have the reason.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Map, Value};
use squall::store::account_data::Datum;
use squall::transport::http::HttpClient;

use crate::deployment::PATIENCE;
use crate::log::logs;
use crate::program::{Program, Site};
use crate::run;

const METRIC: &str = "squall_database_writable";

fn datum(kind: &str) -> Datum {
    let content = Value::Object(Map::new());
    Datum { user_id: "@user:squall.test".into(), room_id: None, kind: kind.into(), content }
}

async fn write(client: &HttpClient, kind: &str) -> Result<(), String> {
    let written = client.set_account_data(&"master".into(), &datum(kind)).await;
    written.map(drop).map_err(|error| error.to_string())
}

/// Waits until the health check has this status, and returns its text.
async fn becomes(program: &Program, status: u16) -> String {
    let becoming = async {
        loop {
            match program.get("/health").await {
                (now, text) if now == status => return text,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let text = tokio::time::timeout(PATIENCE, becoming).await;
    text.unwrap_or_else(|_| panic!("{} does not answer {status}: {}", program.name, program.log()))
}

#[test]
fn a_locked_database_is_bad_health_with_and_without_traffic() {
    run(async {
        let site = Site::new("unwritable-locked", None);
        let (master, worker) = (site.start("master").await, site.start("worker1").await);
        assert_eq!(master.value(METRIC, &[]).await, 1);
        let other = Connection::open(site.database()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let client = site.client();
        let (written, ()) = tokio::join!(write(&client, "m.waits"), async {
            for program in [&master, &worker] {
                let reason = becomes(program, 503).await;
                assert!(reason.starts_with("nothing could be written for "), "{reason}");
                assert!(reason.ends_with(" s: another process has locked the database\n"), "{reason}");
                assert_eq!(program.value(METRIC, &[]).await, 0);
                logs(program, "another process has locked the database").await;
            }
            drop(other);
        });
        written.unwrap();
        for program in [&master, &worker] {
            assert_eq!(becomes(program, 200).await, "OK");
            assert_eq!(program.value(METRIC, &[]).await, 1);
            logs(program, "the database can be written again").await;
        }
    });
}

#[test]
fn a_process_that_starts_on_a_locked_database_says_so_and_can_be_stopped() {
    run(async {
        let site = Site::new("unwritable-start", None);
        // So that the file is there, and has its tables.
        site.start("master").await.kill();
        let other = Connection::open(site.database()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut master = site.launch("master");
        logs(&master, "serving metrics and health").await;
        let answer = tokio::time::timeout(PATIENCE / 2, master.get("/health")).await.expect("it answers");
        assert!(answer.0 == 503 && answer.1.starts_with("starting"), "{answer:?}");
        assert_eq!(master.stop("TERM").await.code(), Some(0), "{}", master.log());
    });
}

/// A limit on the length of files, which `prlimit` sets, stands for a full disk: a real one needs a file system of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_takes_no_more_is_bad_health_until_it_does() {
    run(async {
        let site = Site::new("unwritable-full", None);
        let master = site.start_limitable("master").await;
        let client = site.client().retrying_for(Duration::from_secs(1));
        write(&client, "m.first").await.unwrap();
        let log_of_writes = site.database().with_file_name("squall.db-wal");
        master.limit_files(&std::fs::metadata(log_of_writes).unwrap().len().to_string());
        let refused = write(&client, "m.second").await.unwrap_err();
        assert!(refused.contains("503") && refused.contains("the disk of the database returned an error"), "{refused}");
        let reason = becomes(&master, 503).await;
        assert!(reason.ends_with(": the disk of the database returned an error\n"), "{reason}");
        // Longer than it takes to try again.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(master.get("/health").await.0, 503);
        assert_eq!(master.value(METRIC, &[]).await, 0);
        master.limit_files("unlimited");
        assert_eq!(becomes(&master, 200).await, "OK");
        write(&client, "m.second").await.unwrap();
        assert_eq!(site.tokens()["account_data master"].len(), 2);
    });
}
