//! Checks that hold over TCP and over Redis.

use std::rc::Rc;
use std::time::Duration;

use squall::limits::COMMANDS_QUEUED_MAX;
use squall::tasks;
use squall_protocol::Token;
use squall_protocol::rows::{events, typing};

use crate::deployment::{Deployment, PATIENCE, ROOM, big_event, ids};

pub(crate) async fn rows_of_all_writers_arrive_complete_and_in_order(deployment: Deployment) {
    let master = deployment.start("master").await;
    let [writer1, writer2] = [deployment.start("writer1").await, deployment.start("writer2").await];
    let worker = deployment.start("worker").await;

    let mut last = Token(0);
    for number in 0..20 {
        let (one, other) = tokio::join!(
            writer1.persist([format!("$one{number}")]),
            writer2.persist([format!("$two{number}a"), format!("$two{number}b")]),
        );
        last = one.max(other);
    }
    let big = writer1.instance.events().unwrap().persist(vec![big_event("$big", 120)]).await.unwrap();
    assert!(big > last);
    for user in ["@a", "@b", "@c"] {
        master.typing_begins(user);
    }

    let from_writer1 = worker.follower.reaches(events::NAME, "writer1", big).await;
    assert_eq!(from_writer1.event_ids(), [ids("one", 20), vec!["$big".to_owned()]].concat());
    let (token, rows) = from_writer1.rows.last().unwrap();
    assert_eq!((*token, rows.len()), (big, 120), "all rows of a token arrive together");

    let from_writer2 = worker.follower.reaches(events::NAME, "writer2", last).await;
    let two: Vec<_> = ids("two", 20).into_iter().flat_map(|id| [format!("{id}a"), format!("{id}b")]).collect();
    assert_eq!(from_writer2.event_ids(), two);

    worker.follower.reaches(typing::NAME, "master", Token(3)).await;
    assert_eq!(worker.instance.typing().typing_in(ROOM), ["@a", "@b", "@c"]);
    // The writers follow one another, and the master follows both.
    writer1.follower.reaches(events::NAME, "writer2", last).await;
    master.follower.reaches(events::NAME, "writer1", big).await;
}

/// Ten times as many rows as may wait for one peer are committed at once.
pub(crate) async fn a_burst_is_streamed_to_its_end(deployment: Deployment) {
    const ROWS: usize = 10 * COMMANDS_QUEUED_MAX;
    let _master = deployment.start("master").await;
    let writer1 = deployment.start("writer1").await;
    let worker = deployment.start("worker").await;
    let first = writer1.persist(ids("first", 1)).await;
    worker.follower.reaches(events::NAME, "writer1", first).await;
    let last = writer1.persist(ids("burst", ROWS)).await;
    let followed = worker.follower.reaches(events::NAME, "writer1", last).await;
    assert_eq!(followed.event_ids().len(), ROWS + 1);
    let arrived = worker.instance.env().tasks.tallies()[&tasks::ON_RDATA].started;
    assert_eq!(arrived, ROWS as u64 + 1, "the others were fetched after the connection was dropped");
}

pub(crate) async fn a_worker_that_was_stopped_catches_up(deployment: Deployment) {
    let master = deployment.start("master").await;
    let [writer1, writer2] = [deployment.start("writer1").await, deployment.start("writer2").await];
    let worker = deployment.start("worker").await;
    let before = writer1.persist(ids("before", 5)).await;
    let typed = master.typing_begins("@before");
    worker.follower.reaches(events::NAME, "writer1", before).await;
    worker.follower.reaches(typing::NAME, "master", typed).await;
    worker.stop().await;

    let missed = writer1.persist(ids("missed", 150)).await;
    let elsewhere = writer2.persist(ids("elsewhere", 5)).await;
    let typed = master.typing_begins("@missed");

    let worker = deployment.start("worker").await;
    let after = writer1.persist(ids("after", 150)).await;
    let followed = worker.follower.reaches(events::NAME, "writer1", after).await;
    // The rows up to its first position are in the database; the worker does not apply them.
    let behind = usize::try_from(followed.start.0 - (missed.0 - 150)).unwrap_or(0);
    assert_eq!(followed.event_ids(), [&ids("missed", 150)[behind..], &ids("after", 150)].concat());
    worker.follower.reaches(events::NAME, "writer2", elsewhere).await;
    worker.follower.reaches(typing::NAME, "master", typed).await;
    assert_eq!(worker.instance.typing().typing_in(ROOM), ["@before", "@missed"]);
}

pub(crate) async fn a_writer_that_was_stopped_goes_on_with_higher_tokens(deployment: Deployment) {
    let _master = deployment.start("master").await;
    let [writer1, writer2] = [deployment.start("writer1").await, deployment.start("writer2").await];
    let worker = deployment.start("worker").await;
    let before = writer1.persist(ids("before", 5)).await;
    worker.follower.reaches(events::NAME, "writer1", before).await;
    writer1.stop().await;
    let meanwhile = writer2.persist(ids("meanwhile", 5)).await;

    // An instance that has not reconnected yet must fetch these.
    let writer1 = deployment.start("writer1").await;
    let missed = writer1.persist(ids("missed", 150)).await;
    assert!(missed.0 - 150 >= meanwhile.0, "a token was given out twice: {missed} after {meanwhile}");
    let followed = worker.follower.reaches(events::NAME, "writer1", missed).await;
    assert_eq!(followed.event_ids(), [ids("before", 5), ids("missed", 150)].concat());

    let after = writer1.persist(ids("after", 5)).await;
    let followed = worker.follower.reaches(events::NAME, "writer1", after).await;
    assert_eq!(followed.event_ids(), [ids("before", 5), ids("missed", 150), ids("after", 5)].concat());
    let followed = worker.follower.reaches(events::NAME, "writer2", meanwhile).await;
    assert_eq!(followed.event_ids(), ids("meanwhile", 5));
}

pub(crate) async fn users_of_a_worker_that_stops_no_longer_sync(deployment: Deployment) {
    const USER: &str = "@user:squall.test";
    // Only code in the process can begin a sync, so the instances are not processes of their own.
    let master = deployment.start("master").await;
    let worker = deployment.start("worker").await;
    let syncing = worker.instance.user_syncs().begin(USER, Some("DEVICE"));
    let is_syncing = |expected| {
        let presence = Rc::clone(master.instance.presence());
        tokio::time::timeout(PATIENCE, async move {
            while presence.is_syncing(USER) != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    is_syncing(true).await.expect("the presence writer receives the start of the sync");
    // Only the worker's last command can end the sync: no process expires so soon.
    assert!(worker.instance.config().presence.process_expiry() > 2 * PATIENCE);
    worker.stop().await;
    is_syncing(false).await.expect("the presence writer receives the end of the sync");
    drop(syncing);
}
