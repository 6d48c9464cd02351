//! Instances as processes of their own, which are killed and stopped under load.
//!
//! Each process logs the positions at which it begins to follow and every token that it applies. A test compares each run
//! with the database: after its first position, a run must have applied every row in order, up to the last one that it
//! applied. At the end, every instance must have caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use squall::transport::http::endpoints::send_events::SentEvent;

use crate::deployment::PATIENCE;
use crate::load::{Load, event};
use crate::log::logs;
use crate::program::{Program, Site};
use crate::run;
use crate::server::{Kind, Server, on_both};

on_both! {
    nothing_is_missing_after_kills_under_load;
    a_process_that_is_stopped_clears_its_users_first;
    a_database_that_is_not_the_deployments_is_refused;
}

#[test]
fn nothing_is_missing_after_kills_under_load_over_tcp() {
    run(no_row_is_missing(Site::new("processes-killed-tcp", None), None));
}

#[test]
fn a_process_that_is_stopped_clears_its_users_first_over_tcp() {
    run(stopped_processes_clear_their_users(Site::new("processes-stop-tcp", None)));
}

#[test]
fn a_database_that_is_not_the_deployments_is_refused_over_tcp() {
    run(a_database_that_is_not_the_deployments_is_not_written(Site::new("processes-foreign-tcp", None)));
}

async fn a_database_that_is_not_the_deployments_is_refused(kind: Kind) {
    let server = Server::start(kind, None).await;
    let site = Site::new(&format!("processes-foreign-{kind:?}"), Some(server.config()));
    a_database_that_is_not_the_deployments_is_not_written(site).await;
}

async fn nothing_is_missing_after_kills_under_load(kind: Kind) {
    let server = Server::start(kind, None).await;
    let site = Site::new(&format!("processes-killed-{kind:?}"), Some(server.config()));
    no_row_is_missing(site, Some(server)).await;
}

async fn a_process_that_is_stopped_clears_its_users_first(kind: Kind) {
    let server = Server::start(kind, None).await;
    stopped_processes_clear_their_users(Site::new(&format!("processes-stop-{kind:?}"), Some(server.config()))).await;
}

/// Time of load before, during and after the downtime of an instance.
const SPELL: Duration = Duration::from_millis(400);
/// The instances that are killed, in this order.
const VICTIMS: [&str; 5] = ["worker1", "writer1", "master", "writer2", "worker2"];

async fn no_row_is_missing(site: Site, mut broker: Option<Server>) {
    let mut programs = BTreeMap::new();
    for name in ["master", "writer1", "writer2", "worker1", "worker2"] {
        programs.insert(name, site.start(name).await);
    }
    let load = Load::begin(&site);
    tokio::time::sleep(SPELL).await;
    if let Some(broker) = &mut broker {
        broker.kill().await;
        tokio::time::sleep(SPELL).await;
        for program in programs.values() {
            let (status, reason) = program.get("/health").await;
            assert!(status == 503 && reason.contains("the broker"), "{status} {reason}");
        }
        broker.start_again().await;
        tokio::time::sleep(SPELL).await;
        all_catch_up(&site, &programs, PATIENCE).await;
    }
    let mut runs = Vec::new();
    for name in VICTIMS {
        let mut victim = programs.remove(name).unwrap();
        victim.kill();
        tokio::time::sleep(SPELL).await;
        programs.insert(name, site.start(name).await);
        runs.push(victim);
        tokio::time::sleep(SPELL).await;
        // Restarting the next instance must not be the reason why this one catches up.
        all_catch_up(&site, &programs, PATIENCE).await;
    }
    let written = load.end().await;
    assert_eq!(written.failures, [""; 0]);

    // Every acknowledged write is in the database once.
    assert_eq!(site.event_ids().into_iter().collect::<BTreeSet<_>>(), written.event_ids);
    assert_eq!(site.event_ids().len(), written.event_ids.len());
    assert_eq!(site.tokens()["account_data master"].len(), written.data.len());
    all_catch_up(&site, &programs, PATIENCE).await;
    let followed = no_run_missed_a_row(&site, programs.values_mut().chain(&mut runs)).await;
    // Each row is followed by all four other instances.
    assert!(followed > written.event_ids.len(), "{followed} of {}", written.event_ids.len());
}

/// Checks that each run of a process applied every row after its first position, in order, up to the last one that it
/// applied; and the runs that still go on, up to the last row of the database. Returns the number of rows.
pub(crate) async fn no_run_missed_a_row(site: &Site, runs: impl Iterator<Item = &mut Program>) -> usize {
    let tokens = site.tokens();
    let mut followed = 0;
    for program in runs {
        let is_last = program.is_running();
        for (source, logged) in program.logged() {
            let Some(tokens) = tokens.get(&source) else { continue };
            let upto = if is_last { i64::MAX } else { logged.applied.last().copied().unwrap_or(logged.from) };
            let expected = tokens.iter().copied().filter(|token| (logged.from + 1..=upto).contains(token));
            let expected: Vec<i64> = expected.collect();
            assert_eq!(logged.applied, expected, "{source} at {} from {}", program.name, logged.from);
            if is_last {
                let (stream, writer) = source.split_once(' ').unwrap();
                let counted = program.value("squall_rows_applied_total", &[stream, writer]).await;
                assert_eq!(counted, expected.len() as i64, "{source} at {}", program.name);
            }
            followed += expected.len();
        }
    }
    followed
}

/// Waits so long until every instance has caught up with the database.
pub(crate) async fn all_catch_up(site: &Site, programs: &BTreeMap<&str, Program>, patience: Duration) {
    let tokens = site.tokens();
    for program in programs.values() {
        for (source, tokens) in &tokens {
            let (stream, writer) = source.split_once(' ').unwrap();
            if writer != program.name {
                program.reaches(patience, stream, writer, *tokens.last().unwrap()).await;
            }
        }
    }
}

async fn stopped_processes_clear_their_users(site: Site) {
    let master = site.start("master").await;
    for (cleared, (name, signal)) in (0..).zip([("worker1", "TERM"), ("worker2", "INT"), ("writer1", "TERM")]) {
        let mut program = site.start(name).await;
        if site.has_broker() {
            // The master reads its own REPLICATE too.
            master.receives("REPLICATE", cleared + 2).await;
        } else {
            program.is_set_up_with("master").await;
        }
        assert_eq!(master.received("CLEAR_USER_SYNC").await, cleared);
        assert_eq!(program.stop(signal).await.code(), Some(0), "{}", program.log());
        assert!(program.log().contains("\"stopped\""), "{}", program.log());
        master.receives("CLEAR_USER_SYNC", cleared + 1).await;
    }
    let mut master = master;
    assert_eq!(master.stop("TERM").await.code(), Some(0), "{}", master.log());
}

async fn a_database_that_is_not_the_deployments_is_not_written(mut site: Site) {
    let writer1 = site.start("writer1").await;
    let client = site.client();
    let (first, second) = (site.room_of("writer1"), site.room_of("writer2"));
    let events: Vec<SentEvent> = (0..5).map(|number| event(&format!("${number}"), &first)).collect();
    client.send_events(&"writer1".into(), &events).await.unwrap();

    site.use_database("another.db");
    let writer2 = site.start("writer2").await;
    logs(&writer2, "a token that its writer cannot have").await;
    let refused = client.send_events(&"writer2".into(), &[event("$other", &second)]).await.unwrap_err().to_string();
    assert!(refused.contains("it is not the database of this deployment"), "{refused}");
    assert!(site.event_ids().is_empty());
    let (status, reason) = writer2.get("/health").await;
    assert!(status == 503 && reason.contains("set the sequence"), "{status} {reason}");
    logs(&writer2, "write refused").await;
    // The instances that use the right database go on.
    client.send_events(&"writer1".into(), &[event("$5", &first)]).await.unwrap();
    assert_eq!(writer1.get("/health").await.0, 200);
}
