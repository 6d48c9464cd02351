//! Commands that carry no rows, and rows of unknown streams and writers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use squall::replication::{Consumer, Consumers};
use squall_protocol::rows::Row;
use squall_protocol::{Command, InstanceName, StreamName, Token};

use crate::deployment::Deployment;
use crate::peer::Peer;
use crate::run;

const MOMENT: Duration = Duration::from_secs(1);

/// A consumer that records its callbacks.
#[derive(Default)]
struct Diary(RefCell<Vec<String>>);

impl Diary {
    fn registered() -> (Rc<Self>, Consumers) {
        let (diary, consumers) = (Rc::<Self>::default(), Consumers::default());
        consumers.register(diary.clone());
        (diary, consumers)
    }

    fn entries(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

impl Consumer for Diary {
    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        let rows: Vec<String> = rows.iter().map(|row| row.to_json().to_string()).collect();
        self.0.borrow_mut().push(format!("{stream} {writer} {token} {}", rows.join(" ")));
    }

    fn command_received(&self, command: &Command) {
        self.0.borrow_mut().push(command.to_line().unwrap());
    }
}

#[test]
fn a_command_for_every_instance_is_relayed_to_all_but_its_sender() {
    run(async {
        let deployment = Deployment::new();
        let (diary, consumers) = Diary::registered();
        let _master = deployment.start_with("master", consumers).await;
        let mut sender = deployment.join("master").await;
        let mut others = [deployment.join("master").await, deployment.join("master").await];
        let said = ["REMOTE_SERVER_UP matrix.org", r#"LOCK_RELEASED ["worker1","lock","key"]"#];
        for line in said {
            sender.say(line).await;
        }
        for other in &mut others {
            assert_eq!(other.lines_for(MOMENT).await, said);
        }
        assert_eq!(sender.lines_for(MOMENT).await, [""; 0], "an echo would be relayed for ever (Synapse #7352)");
        assert_eq!(diary.entries(), said);
    });
}

#[test]
fn only_the_master_relays_commands() {
    run(async {
        let deployment = Deployment::new();
        let (diary, consumers) = Diary::registered();
        let _writer = deployment.start_with("writer1", consumers).await;
        let mut sender = deployment.join("writer1").await;
        let mut other = deployment.join("writer1").await;
        sender.say("REMOTE_SERVER_UP matrix.org").await;
        assert_eq!(other.lines_for(MOMENT).await, [""; 0]);
        assert_eq!(diary.entries(), ["REMOTE_SERVER_UP matrix.org"]);
    });
}

#[test]
fn unknown_streams_and_writers_do_no_harm() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let (diary, consumers) = Diary::registered();
        let worker = deployment.start_with("worker1", consumers).await;
        let mut server = Peer::new(port.accept().await.unwrap());
        server.hear("REPLICATE").await;
        for line in [
            "SERVER squall.test",
            "POSITION typing master 0 0",
            "POSITION nosuch master 5 9",
            r#"RDATA nosuch master batch {"a":1}"#,
            r#"RDATA nosuch master 10 {"a":2}"#,
            "POSITION typing stranger 5 9",
            r#"RDATA typing stranger 10 ["!strange:squall.test",[]]"#,
            r#"RDATA typing master 1 ["!room:squall.test",["@user:squall.test"]]"#,
        ] {
            server.say(line).await;
        }
        assert_eq!(server.lines_for(MOMENT).await, [""; 0]);
        assert_eq!(diary.entries(), [r#"typing master 1 ["!room:squall.test",["@user:squall.test"]]"#]);
        assert_eq!(worker.typing().typing_in("!room:squall.test"), ["@user:squall.test"]);
    });
}

#[test]
fn half_a_batch_of_a_lost_connection_is_not_completed_by_the_next() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let (diary, consumers) = Diary::registered();
        let _worker = deployment.start_with("worker1", consumers).await;
        deployment.allocate_events().await;
        let mut first = Peer::new(port.accept().await.unwrap());
        first.say("POSITION events master 1 1").await;
        first.say(r#"RDATA events master batch ["state-all",["!half:squall.test"]]"#).await;
        first.lines_for(MOMENT).await;
        drop(first);
        let mut second = Peer::new(port.accept().await.unwrap());
        second.say("POSITION events master 1 1").await;
        second.say(r#"RDATA events master 2 ["state-all",["!whole:squall.test"]]"#).await;
        second.lines_for(MOMENT).await;
        assert_eq!(diary.entries(), [r#"events master 2 ["state-all",["!whole:squall.test"]]"#]);
    });
}
