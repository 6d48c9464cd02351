//! Stopping a process whose peer does not read its last lines.

use std::time::Duration;

use squall::instance::STOP_GRACE;
use tokio::time::Instant;

use crate::deployment::PATIENCE;
use crate::program::Site;
use crate::run;
use crate::server::{Kind, Server};

const A_WHILE: Duration = Duration::from_millis(400);

#[test]
fn a_stop_waits_for_the_broker_unless_a_second_signal_comes() {
    run(async {
        let server = Server::start(Kind::Real, None).await;
        let site = Site::new("stopping-silent", Some(server.config()));
        let mut worker = site.start("worker1").await;
        server.fall_silent();
        worker.signal("TERM");
        let stopping = async {
            while worker.get("/health").await != (503, "stopping\n".to_owned()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, stopping).await.expect("the health check reports that the worker stops");
        tokio::time::sleep(A_WHILE).await;
        assert!(
            worker.is_running(),
            "the worker ended, although its last command is not acknowledged: {}",
            worker.log()
        );
        let signalled = Instant::now();
        assert_eq!(worker.stop("TERM").await.code(), Some(128 + 15), "{}", worker.log());
        assert!(signalled.elapsed() < STOP_GRACE - A_WHILE, "it took {:?}", signalled.elapsed());
    });
}
