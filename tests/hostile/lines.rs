//! On the line protocol.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use squall::env::Listener;
use squall::protocol::{InstanceName, LINE_BYTES_MAX, StreamName, Token};
use squall::replication::handler::BATCH_ROWS_MAX;
use squall::replication::link::COMMANDS_QUEUED_MAX;
use squall::replication::{Consumer, Consumers};
use squall::streams::Row;
use squall::transport::tcp::{CONNECTIONS_MAX, LINE_TIMEOUT, PING_INTERVAL};
use tokio::time::{Instant, sleep};

use crate::attack::{Follower, Target, persist, persist_many};
use crate::deployment::Deployment;
use crate::memory::Watch;
use crate::peer::Peer;
use crate::{on_master, run};

/// What one connection may cost: what is read at once, the line that is being put together and twice that while it
/// grows, and the pipes of the test itself.
const CONNECTION_BYTES_MAX: usize = 96 * 1024;
/// Far more than anybody may make an instance hold.
const FLOOD_BYTES: usize = 8 * 1024 * 1024;
const ATTACKERS: usize = 50;
/// What one of the rows takes that are sent here, with its strings.
const ROW_BYTES_MAX: usize = 500;

/// Sends so much of what `pieces` gives, or as much as the other end takes, and gives what it says to the end.
async fn flood(mut peer: Peer, piece: Vec<u8>) -> Vec<String> {
    for _ in 0..FLOOD_BYTES / piece.len() {
        peer.say_bytes(&piece).await;
    }
    peer.lines_to_end().await
}

fn assert_told(lines: &[String], why: &str) {
    let [.., last] = lines else { panic!("hung up on without a word") };
    assert!(last.starts_with("ERROR ") && last.contains(why), "expected {why:?}, not {last:?}");
}

/// `[[[…1…]]]`
fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn lines_that_are_too_long_or_never_end_are_not_held() {
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
            assert!(watch.peak() < bound, "{} bytes held, more than {bound}", watch.peak());
        }
        assert!(master.told(&["Line length exceeded"]) >= 2 * ATTACKERS, "{:?}", master.everything_told());
        master.serves_others(&deployment).await;
    });
}

#[test]
fn garbage_is_told_and_costs_its_sender_the_connection() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..300 {
            let mut garbage = vec![0; rng.random_range(1..3 * LINE_BYTES_MAX)];
            rng.fill(&mut garbage[..]);
            garbage.push(b'\n');
            let mut attacker = deployment.join("master").await;
            attacker.say_bytes(&garbage).await;
            assert_told(&attacker.lines_to_end().await, "");
        }
        follower.gets_a_row(&master.instance).await;
        master.serves_others(&deployment).await;
    });
}

#[test]
fn a_line_that_does_not_come_whole_in_time_is_not_waited_for() {
    on_master(async |deployment, master| {
        for first_words in ["", "NAME drip\n"] {
            let mut attacker = deployment.join("master").await;
            attacker.say_bytes(first_words.as_bytes()).await;
            let since = Instant::now();
            while master.told(&["did not come whole"]) == 0 {
                attacker.say_bytes(b"x").await;
                sleep(Duration::from_secs(1)).await;
                assert!(since.elapsed() < LINE_TIMEOUT + PING_INTERVAL, "a byte a second for ever");
            }
            assert!(since.elapsed() >= LINE_TIMEOUT);
            assert_told(&attacker.lines_to_end().await, "did not come whole");
            master.serves_others(&deployment).await;
            master.forget_troubles();
        }
    });
}

#[test]
fn a_line_that_comes_slowly_but_in_time_is_taken() {
    on_master(async |deployment, master| {
        let mut slow = deployment.join("master").await;
        for _ in 0..3 {
            for byte in b"REPLICATE\n" {
                slow.say_bytes(&[*byte]).await;
                sleep(LINE_TIMEOUT / 11).await;
            }
            slow.hear("POSITION ").await;
        }
        persist(&master.instance).await;
        slow.hear("RDATA events ").await;
    });
}

#[test]
fn a_thousand_who_say_nothing_cost_little_and_not_for_long() {
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
        assert!(watch.peak() < bound, "{} bytes held, more than {bound}", watch.peak());
        assert!(master.instance.handler().links().is_empty(), "some are waited for still");
        for attacker in idle {
            assert_told(&attacker.lines_to_end().await, "did not come whole");
        }
    });
}

#[test]
fn ever_new_names_are_not_all_kept() {
    on_master(async |deployment, master| {
        let mut attacker = deployment.join("master").await;
        let watch = Watch::begin();
        for number in 0..20_000 {
            attacker.say(&format!("NAME {number:01000}")).await;
        }
        sleep(Duration::from_millis(1)).await;
        assert!(watch.peak() < CONNECTION_BYTES_MAX, "{} bytes held", watch.peak());
        master.serves_others(&deployment).await;
    });
}

#[test]
fn one_connection_too_many_is_told_so_and_there_is_room_again_later() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let mut idle = Vec::new();
        for _ in 1..CONNECTIONS_MAX {
            idle.push(deployment.connect("master").await);
        }
        for _ in 0..3 {
            assert_eq!(deployment.connect("master").await.lines_to_end().await, ["ERROR too many connections"]);
        }
        assert_eq!(master.told(&["too many connections"]), 3);
        follower.gets_a_row(&master.instance).await;
        idle.pop();
        sleep(Duration::from_millis(1)).await;
        master.serves_others(&deployment).await;
    });
}

#[test]
fn one_who_takes_nothing_is_dropped_and_what_waits_for_them_is_bounded() {
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
        // A line, and where it stands in the queue.
        let bound = COMMANDS_QUEUED_MAX * (150 + 32) + CONNECTION_BYTES_MAX;
        assert!(watch.peak() < 2 * bound, "{} bytes held, more than twice {bound}", watch.peak());
        assert_told(&slow.lines_to_end().await, "Failed to keep up");
        follower.gets_a_row(&master.instance).await;
    });
}

#[test]
fn one_who_asks_for_positions_without_end_is_dropped() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let attacker = deployment.join("master").await;
        let watch = Watch::begin();
        let asking = tokio::task::spawn_local(flood(attacker, b"REPLICATE\n".repeat(1_000)));
        follower.gets_a_row(&master.instance).await;
        assert_told(&asking.await.unwrap(), "Failed to keep up");
        let bound = COMMANDS_QUEUED_MAX * 200;
        assert!(watch.peak() < 2 * bound, "{} bytes held, more than twice {bound}", watch.peak());
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
        for levels in [1_000, LINE_BYTES_MAX / 2 - 100] {
            let mut server = play_master(&mut port).await;
            server.say(&format!("RDATA events master 2 {}", nested(levels))).await;
            assert_told(&server.lines_to_end().await, "recursion limit exceeded");
        }
        assert!(worker.told(&["recursion limit exceeded"]) >= 2, "{:?}", worker.everything_told());
        // It comes back, and understands what can be understood.
        let mut server = play_master(&mut port).await;
        server.say("POSITION events master 1 7").await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(worker.instance.handler().position("events", &"master".into()).unwrap().0, 7);
    });
}

#[test]
fn a_batch_without_end_is_not_held() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let (applied, consumers) = (Rc::new(Applied::default()), Consumers::default());
        consumers.register(applied.clone());
        let worker = Target::start_with(&deployment, "worker1", consumers).await;
        let mut server = play_master(&mut port).await;
        server.say("POSITION events master 1 1").await;
        let row = r#"["ev",["$e","!r:squall.test","m.room.message",null,null,null,null,false,false]]"#;
        let watch = Watch::begin();
        for _ in 0..5 * BATCH_ROWS_MAX {
            server.say(&format!("RDATA events master batch {row}")).await;
        }
        let bound = ROW_BYTES_MAX * BATCH_ROWS_MAX;
        assert!(watch.peak() < bound, "{} bytes held, more than {bound}", watch.peak());
        // What was not held is fetched from the source, where there is nothing in this case.
        server.say(&format!("RDATA events master 2 {row}")).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(worker.instance.handler().position("events", &"master".into()).unwrap().0, 2);
        assert_eq!(applied.0.get(), 0);
    });
}

/// How many rows were applied.
#[derive(Default)]
struct Applied(Cell<usize>);

impl Consumer for Applied {
    fn applied(&self, _stream: &StreamName, _writer: &InstanceName, _token: Token, rows: &[Row]) {
        self.0.set(self.0.get() + rows.len());
    }
}
