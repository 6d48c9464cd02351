//! Attacks on the line protocol.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use squall::limits::{BATCH_ROWS_MAX, COMMANDS_QUEUED_MAX, ROWS_BYTES_MAX, TCP_CONNECTIONS_MAX};
use squall::replication::{Consumer, Consumers};
use squall::transport::tcp::{LINE_TIMEOUT, PING_INTERVAL};
use squall_env::Listener;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, LINE_BYTES_MAX, StreamName, Token};
use tokio::time::{Instant, sleep};

use crate::attack::{Follower, Target, nested, persist, persist_many};
use crate::deployment::Deployment;
use crate::memory::Watch;
use crate::peer::Peer;
use crate::{on_master, run};

/// Memory that one connection may use: the read buffer, the incomplete line (three times while its buffer grows), and the
/// pipes of the test itself.
const CONNECTION_BYTES_MAX: usize = 96 * 1024;
/// Number of bytes of a flood: far more than a peer may make an instance hold.
const FLOOD_BYTES: usize = 8 * 1024 * 1024;
const ATTACKERS: usize = 50;
/// Memory that one of the rows below takes.
const ROW_BYTES_MAX: usize = 500;

/// Sends `piece` until `FLOOD_BYTES` are sent, and returns the lines that the other end sends until it closes.
async fn flood(mut peer: Peer, piece: Vec<u8>) -> Vec<String> {
    for _ in 0..FLOOD_BYTES / piece.len() {
        peer.say_bytes(&piece).await;
    }
    peer.lines_to_end().await
}

fn assert_error(lines: &[String], why: &str) {
    let [.., last] = lines else { panic!("closed without an error") };
    assert!(last.starts_with("ERROR ") && last.contains(why), "expected {why:?}, not {last:?}");
}

#[test]
fn lines_that_are_too_long_or_never_end_are_not_buffered() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        for line in [vec![b'x'; 64 * 1024], [&[b'x'; LINE_BYTES_MAX + 1][..], b"\n"].concat()] {
            let watch = Watch::begin();
            let mut attackers = tokio::task::JoinSet::new();
            for _ in 0..ATTACKERS {
                attackers.spawn_local(flood(deployment.join("master").await, line.clone()));
            }
            follower.gets_a_row(&master.instance).await;
            for lines in attackers.join_all().await {
                assert_eq!(lines, ["ERROR Line length exceeded"]);
            }
            let bound = ATTACKERS * (CONNECTION_BYTES_MAX + line.len());
            watch.assert_below(bound, "memory");
        }
        assert!(master.reported(&["Line length exceeded"]) >= 2 * ATTACKERS, "{:?}", master.reports());
        master.serves_others(&deployment).await;
    });
}

#[test]
fn garbage_costs_its_sender_the_connection() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..300 {
            let mut garbage = vec![0; rng.random_range(1..3 * LINE_BYTES_MAX)];
            rng.fill(&mut garbage[..]);
            garbage.push(b'\n');
            let mut attacker = deployment.join("master").await;
            attacker.say_bytes(&garbage).await;
            assert_error(&attacker.lines_to_end().await, "");
        }
        follower.gets_a_row(&master.instance).await;
        master.serves_others(&deployment).await;
    });
}

#[test]
fn an_incomplete_line_times_out() {
    on_master(async |deployment, master| {
        for first_words in ["", "NAME drip\n"] {
            let mut attacker = deployment.join("master").await;
            attacker.say_bytes(first_words.as_bytes()).await;
            let since = Instant::now();
            while master.reported(&["was not complete within"]) == 0 {
                attacker.say_bytes(b"x").await;
                sleep(Duration::from_secs(1)).await;
                assert!(since.elapsed() < LINE_TIMEOUT + PING_INTERVAL, "a byte a second for ever");
            }
            assert!(since.elapsed() >= LINE_TIMEOUT);
            assert_error(&attacker.lines_to_end().await, "was not complete within");
            master.serves_others(&deployment).await;
            master.clear_reports();
        }
    });
}

#[test]
fn a_slow_line_that_is_complete_in_time_is_accepted() {
    on_master(async |deployment, master| {
        let mut slow = deployment.join("master").await;
        for _ in 0..3 {
            for byte in b"REPLICATE\n" {
                slow.say_bytes(&[*byte]).await;
                sleep(LINE_TIMEOUT / 11).await;
            }
            slow.hear("POSITION ").await;
            slow.say("PING 1").await;
        }
        persist(&master.instance).await;
        slow.hear("RDATA events ").await;
    });
}

#[test]
fn a_thousand_silent_clients_use_little_memory_and_time_out() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let watch = Watch::begin();
        let mut idle = Vec::new();
        for _ in 0..1_000 {
            idle.push(deployment.connect("master").await);
        }
        master.serves_others(&deployment).await;
        follower.gets_a_row(&master.instance).await;
        sleep(LINE_TIMEOUT + PING_INTERVAL).await;
        let bound = 1_000 * CONNECTION_BYTES_MAX;
        watch.assert_below(bound, "memory");
        assert!(master.instance.handler().connections().is_empty(), "some connections are still open");
        for attacker in idle {
            assert_error(&attacker.lines_to_end().await, "was not complete within");
        }
    });
}

#[test]
fn only_the_last_name_is_kept() {
    on_master(async |deployment, master| {
        let mut attacker = deployment.join("master").await;
        let watch = Watch::begin();
        for number in 0..20_000 {
            attacker.say(&format!("NAME {number:01000}")).await;
        }
        sleep(Duration::from_millis(1)).await;
        watch.assert_below(CONNECTION_BYTES_MAX, "memory");
        master.serves_others(&deployment).await;
    });
}

#[test]
fn a_connection_beyond_the_maximum_is_refused_until_another_closes() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let mut idle = Vec::new();
        for _ in 1..TCP_CONNECTIONS_MAX {
            idle.push(deployment.connect("master").await);
        }
        for _ in 0..3 {
            assert_eq!(deployment.connect("master").await.lines_to_end().await, ["ERROR too many connections"]);
        }
        assert_eq!(master.reported(&["too many connections"]), 3);
        follower.gets_a_row(&master.instance).await;
        idle.pop();
        sleep(Duration::from_millis(1)).await;
        master.serves_others(&deployment).await;
    });
}

#[test]
fn a_client_that_reads_nothing_is_dropped_and_its_queue_is_bounded() {
    on_master(async |deployment, master| {
        let mut slow = deployment.join("master").await;
        slow.say("REPLICATE").await;
        slow.hear("POSITION events ").await;
        let watch = Watch::begin();
        let mut follower = Follower::join(&deployment).await;
        for _ in 0..2 * COMMANDS_QUEUED_MAX / 500 {
            let token = persist_many(&master.instance, 500).await;
            follower.gets_the_row_of(token).await;
        }
        // A line, and its entry in the queue.
        let bound = COMMANDS_QUEUED_MAX * (150 + 32) + CONNECTION_BYTES_MAX;
        watch.assert_below(2 * bound, "memory");
        assert_error(&slow.lines_to_end().await, "Failed to keep up");
        follower.gets_a_row(&master.instance).await;
    });
}

#[test]
fn a_client_that_sends_endless_replicates_is_dropped() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let attacker = deployment.join("master").await;
        let watch = Watch::begin();
        let asking = tokio::task::spawn_local(flood(attacker, b"REPLICATE\n".repeat(1_000)));
        follower.gets_a_row(&master.instance).await;
        assert_error(&asking.await.unwrap(), "Failed to keep up");
        let bound = COMMANDS_QUEUED_MAX * 200;
        watch.assert_below(2 * bound, "memory");
        follower.gets_a_row(&master.instance).await;
    });
}

/// Opens the port of a master that the test plays, and accepts its worker there.
async fn play_master(port: &mut Box<dyn Listener>) -> Peer {
    let mut server = Peer::new(port.accept().await.unwrap());
    server.say("SERVER squall.test").await;
    server.hear("REPLICATE").await;
    server
}

#[test]
fn a_row_nested_too_deep_costs_the_connection_and_not_the_stack() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let worker = Target::start(&deployment, "worker1").await;
        deployment.allocate_events().await;
        for levels in [1_000, LINE_BYTES_MAX / 2 - 100] {
            let mut server = play_master(&mut port).await;
            server.say(&format!("RDATA events master 2 {}", nested(levels))).await;
            assert_error(&server.lines_to_end().await, "recursion limit exceeded");
        }
        assert!(worker.reported(&["recursion limit exceeded"]) >= 2, "{:?}", worker.reports());
        // The worker reconnects, and applies the rows that it can read.
        let mut server = play_master(&mut port).await;
        server.say("POSITION events master 1 7").await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(worker.instance.handler().position("events", &"master".into()).unwrap().0, 7);
    });
}

#[test]
fn an_endless_batch_is_not_buffered() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let (applied, consumers) = (Rc::new(Applied::default()), Consumers::default());
        consumers.register(applied.clone());
        let worker = Target::start_with(&deployment, "worker1", consumers).await;
        deployment.allocate_events().await;
        let mut server = play_master(&mut port).await;
        server.say("POSITION events master 1 1").await;
        let row = of_type("m.room.message");
        let watch = Watch::begin();
        for _ in 0..5 * BATCH_ROWS_MAX {
            server.say(&format!("RDATA events master batch {row}")).await;
        }
        let bound = ROW_BYTES_MAX * BATCH_ROWS_MAX;
        watch.assert_below(bound, "rows");
        let longest = of_type(&"x".repeat(LINE_BYTES_MAX - 200));
        let watch = Watch::begin();
        for _ in 0..5 * ROWS_BYTES_MAX / LINE_BYTES_MAX {
            server.say(&format!("RDATA events master batch {longest}")).await;
        }
        watch.assert_below(2 * ROWS_BYTES_MAX, "bytes");
        // The worker fetches the rows that it did not hold from their writer, which has none in this case.
        server.say(&format!("RDATA events master 2 {row}")).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(worker.instance.handler().position("events", &"master".into()).unwrap().0, 2);
        assert_eq!(applied.0.get(), 0);
    });
}

/// Returns the row of an event of this type.
fn of_type(kind: &str) -> String {
    format!(r#"["ev",["$e","!r:squall.test","{kind}",null,null,null,null,false,false]]"#)
}

/// A consumer that counts the applied rows.
#[derive(Default)]
struct Applied(Cell<usize>);

impl Consumer for Applied {
    fn applied(&self, _stream: &StreamName, _writer: &InstanceName, _token: Token, rows: &[Row]) {
        self.0.set(self.0.get() + rows.len());
    }
}
