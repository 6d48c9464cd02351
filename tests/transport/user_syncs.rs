//! The commands that announce syncing users.

use std::time::Duration;

use squall::presence::{PresenceState, SetState};
use tokio::time::sleep;

use crate::deployment::{Deployment, NOW_MS};
use crate::peer::Peer;
use crate::run;

const MOMENT: Duration = Duration::from_secs(1);
const USER: &str = "@user:squall.test";

/// Returns the lines about syncing users. The instance id, which is random, is replaced by `ID`.
fn about_syncs(lines: Vec<String>) -> Vec<String> {
    let lines = lines.into_iter().filter(|line| line.contains("USER_SYNC"));
    let without_id = |line: String| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words[1] = "ID";
        words.join(" ")
    };
    lines.map(without_id).collect()
}

#[test]
fn syncs_are_announced_to_the_presence_writer_only() {
    run(async {
        let deployment = Deployment::new();
        let (mut to_master, mut to_writer) = (deployment.play("master").await, deployment.play("writer1").await);
        let worker = deployment.start("worker1").await;
        let mut master = Peer::new(to_master.accept().await.unwrap());
        let mut writer = Peer::new(to_writer.accept().await.unwrap());
        master.say("PING 0").await;
        writer.say("PING 0").await;
        let syncing = worker.user_syncs().begin(USER, Some("PHONE"));
        let lines = about_syncs(master.lines_for(MOMENT).await);
        assert_eq!(lines, [format!("USER_SYNC ID {USER} PHONE start {NOW_MS}")]);
        drop(syncing);
        let mut lines = about_syncs(master.lines_for(21 * MOMENT).await);
        assert_eq!(lines.pop().unwrap(), format!("USER_SYNC ID {USER} PHONE end {NOW_MS}"));
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line.ends_with(&format!("start {NOW_MS}"))),
            "announced again: {lines:?}"
        );
        assert_eq!(about_syncs(writer.lines_for(MOMENT).await), [""; 0]);
    });
}

#[test]
fn a_new_connection_begins_with_all_syncing_users() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let worker = deployment.start("worker1").await;
        let mut first = Peer::new(port.accept().await.unwrap());
        let _syncing = worker.user_syncs().begin(USER, None);
        let said = first.hear("USER_SYNC").await;
        let id = said.split(' ').nth(1).unwrap().to_owned();
        drop(first);
        let mut second = Peer::new(port.accept().await.unwrap());
        let lines = second.lines_for(MOMENT).await;
        let place = |beginning: &str| lines.iter().position(|line| line.starts_with(beginning));
        assert_eq!(place(&format!("CLEAR_USER_SYNC {id}")), Some(2), "{lines:?}");
        assert_eq!(place("REPLICATE"), Some(3), "{lines:?}");
        assert_eq!(about_syncs(lines)[1..], [format!("USER_SYNC ID {USER} None start {NOW_MS}")]);
    });
}

#[test]
fn a_graceful_stop_clears_its_users_also_behind_everything_that_waits() {
    run(async {
        for waiting in [0, 2_000] {
            let deployment = Deployment::new();
            let mut port = deployment.play("master").await;
            let worker = deployment.start("worker1").await;
            let mut master = Peer::new(port.accept().await.unwrap());
            let _syncing = worker.user_syncs().begin(USER, None);
            let said = master.hear("USER_SYNC").await;
            let id = said.split(' ').nth(1).unwrap();
            // Far more than a pipe holds.
            let connection =
                worker.handler().connections().into_iter().find(|connection| connection.peer() == "master").unwrap();
            for number in 0..waiting {
                connection.send(&squall_protocol::Command::RemoteServerUp(number.to_string())).unwrap();
            }
            let (lines, ()) = tokio::join!(master.lines_to_end(), worker.stop());
            assert_eq!(lines.last(), Some(&format!("CLEAR_USER_SYNC {id}")), "{waiting} lines waiting");
        }
    });
}

#[test]
fn syncs_are_not_relayed_and_become_rows() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let mut syncing = deployment.join("master").await;
        let mut other = deployment.join("master").await;
        for line in ["REPLICATE", "PING 0"] {
            other.say(line).await;
        }
        other.hear("POSITION typing").await;
        syncing.say(&format!("USER_SYNC abcde {USER} None start {NOW_MS}")).await;
        syncing.say("CLEAR_USER_SYNC abcde").await;
        let lines = other.lines_for(MOMENT).await;
        let row = format!(r#"RDATA presence master 2 ["{USER}","online",{NOW_MS},0,{NOW_MS},null,true]"#);
        assert_eq!(lines.iter().filter(|line| line.contains(USER)).collect::<Vec<_>>(), [&row], "{lines:?}");
        assert_eq!(about_syncs(lines), [""; 0], "a client that gets one closes (Synapse #7257)");
        assert_eq!(master.presence().presence_of(USER).state, PresenceState::Online);
    });
}

#[test]
fn followers_load_presence_at_their_start_and_follow_its_rows() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let ask = |state| SetState {
            device_id: None,
            state,
            status_msg: Some("hello".into()),
            is_sync: false,
            force_notify: false,
        };
        master.presence().set_state("@early:squall.test", ask(PresenceState::Unavailable)).await.unwrap();
        let worker = deployment.start("worker1").await;
        let early = worker.presence().presence_of("@early:squall.test");
        assert_eq!((early.state, early.status_msg.as_deref()), (PresenceState::Unavailable, Some("hello")));
        sleep(MOMENT).await;

        let token = master.presence().set_state(USER, ask(PresenceState::Online)).await.unwrap();
        sleep(MOMENT).await;
        assert_eq!(worker.handler().position("presence", &"master".into()), Some(token));
        assert_eq!(worker.presence().presence_of(USER), master.presence().presence_of(USER));
        assert_eq!(worker.presence().presence_of("@unknown:squall.test").state, PresenceState::Offline);
    });
}
