//! Instances that replicate through a Redis broker.

use std::time::Duration;

use squall_protocol::Token;
use squall_protocol::rows::{events, typing};

use crate::deployment::{Deployment, ROOM, ids};
use crate::rows;
use crate::server::{Kind, Server, on_both};

on_both! {
    rows_of_all_writers_arrive_complete_and_in_order;
    a_burst_is_streamed_to_its_end;
    a_worker_that_was_stopped_catches_up;
    a_writer_that_was_stopped_goes_on_with_higher_tokens;
    users_of_a_worker_that_stops_no_longer_sync;
    instances_send_the_password_that_the_broker_requires;
    nothing_is_missing_when_the_broker_is_killed_under_load;
    users_who_typed_before_the_writer_restarted_no_longer_type;
    no_instance_listens_for_lines;
}

/// Returns a name for the files of a test. It differs by broker.
fn name(test: &str, kind: Kind) -> String {
    format!("redis-{test}-{kind:?}")
}

async fn rows_of_all_writers_arrive_complete_and_in_order(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("arrive", kind), Some(server.config()));
    rows::rows_of_all_writers_arrive_complete_and_in_order(deployment).await;
}

async fn a_burst_is_streamed_to_its_end(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("burst", kind), Some(server.config()));
    rows::a_burst_is_streamed_to_its_end(deployment).await;
}

async fn a_worker_that_was_stopped_catches_up(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("worker", kind), Some(server.config()));
    rows::a_worker_that_was_stopped_catches_up(deployment).await;
}

async fn a_writer_that_was_stopped_goes_on_with_higher_tokens(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("writer", kind), Some(server.config()));
    rows::a_writer_that_was_stopped_goes_on_with_higher_tokens(deployment).await;
}

async fn users_of_a_worker_that_stops_no_longer_sync(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("syncs", kind), Some(server.config()));
    rows::users_of_a_worker_that_stops_no_longer_sync(deployment).await;
}

async fn instances_send_the_password_that_the_broker_requires(kind: Kind) {
    let server = Server::start(kind, Some("a secret")).await;
    let deployment = Deployment::new(&name("password", kind), Some(server.config()));
    let [_master, writer1, worker] =
        [deployment.start("master").await, deployment.start("writer1").await, deployment.start("worker").await];
    let token = writer1.persist(ids("in", 3)).await;
    worker.follower.reaches(events::NAME, "writer1", token).await;
}

async fn nothing_is_missing_when_the_broker_is_killed_under_load(kind: Kind) {
    let mut server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("killed", kind), Some(server.config()));
    let master = deployment.start("master").await;
    let [writer1, writer2] = [deployment.start("writer1").await, deployment.start("writer2").await];
    let worker = deployment.start("worker").await;
    let first = writer1.persist(["$first".to_owned()]).await;
    worker.follower.reaches(events::NAME, "writer1", first).await;

    let (mut last1, mut last2, mut expected) = (Token(0), Token(0), vec!["$first".to_owned()]);
    for round in 0..60 {
        match round {
            20 => server.kill().await,
            40 => server.start_again().await,
            _ => {}
        }
        let (one, other) = (ids(&format!("one{round}-"), 5), ids(&format!("two{round}-"), 5));
        (last1, last2) = tokio::join!(writer1.persist(one.clone()), writer2.persist(other));
        expected.extend(one);
    }
    let typed = master.typing_begins("@a");
    let followed = worker.follower.reaches(events::NAME, "writer1", last1).await;
    let behind = expected.len() - followed.event_ids().len();
    assert_eq!(followed.event_ids(), expected[behind..], "complete and in order from the worker's first position");
    assert!(behind <= 1);
    worker.follower.reaches(events::NAME, "writer2", last2).await;
    master.follower.reaches(events::NAME, "writer1", last1).await;
    worker.follower.reaches(typing::NAME, "master", typed).await;
}

async fn users_who_typed_before_the_writer_restarted_no_longer_type(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("typing", kind), Some(server.config()));
    let master = deployment.start("master").await;
    let worker = deployment.start("worker").await;
    let elsewhere = "!elsewhere:squall.test";
    let tasks = &master.instance.env().tasks;
    let typed = master.instance.typing().started(tasks, elsewhere, "@before", Duration::from_secs(600));
    worker.follower.reaches(typing::NAME, "master", typed).await;
    master.stop().await;

    // The worker stays connected to the broker, and the tokens of the new process soon pass those of the old one.
    let master = deployment.start("master").await;
    master.typing_begins("@after");
    let typed = master.typing_begins("@later");
    worker.follower.reaches(typing::NAME, "master", typed).await;
    assert_eq!(worker.instance.typing().typing_in(ROOM), ["@after", "@later"]);
    assert!(worker.instance.typing().typing_in(elsewhere).is_empty());
}

async fn no_instance_listens_for_lines(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&name("lines", kind), Some(server.config()));
    let master = deployment.start("master").await;
    let endpoint = &master.instance.config().instance_map["master"];
    let connect = |port| tokio::net::TcpStream::connect(("127.0.0.1", port));
    assert!(
        connect(endpoint.replication_port).await.is_err(),
        "with a broker, an instance must not listen for the line protocol"
    );
    assert!(connect(endpoint.http_port).await.is_ok());
}
