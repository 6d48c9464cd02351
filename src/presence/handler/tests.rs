use std::cell::Cell;

use super::super::testing::{EPOCH_MS, Written, on_paused_clock, seconds};
use super::*;
use crate::presence::{OFFLINE_KEPT_MAX, SYNCING_OF_USER_MAX};
use crate::tasks;
use PresenceState::{Busy, Offline, Online, Unavailable};

const USER: &str = "@a:hs";

fn writer(states: Vec<UserPresence>, env: &Env) -> (Rc<PresenceHandler>, Rc<Written>) {
    let written = Written::new();
    let config = PresenceConfig { process_expiry_ms: 20_000, ..PresenceConfig::default() };
    let states = states.into_iter().zip(1..).map(|(state, token)| (Token(token), state)).collect();
    (PresenceHandler::on_writer(states, written.clone(), &config, env.clone()), written)
}

fn sync(instance_id: &str, is_syncing: bool, last_sync_ms: i64) -> UserSync {
    UserSync { instance_id: instance_id.into(), user_id: USER.into(), device_id: None, is_syncing, last_sync_ms }
}

fn request(state: PresenceState) -> SetState {
    SetState { device_id: None, state, status_msg: None, is_sync: false, force_notify: false }
}

#[test]
fn a_user_who_begins_to_sync_is_online_and_one_who_stops_goes_offline_later() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        handler.user_sync(&sync("p", true, EPOCH_MS));
        seconds(15).await;
        // Announced late, as always: the sync ended two seconds ago.
        handler.user_sync(&sync("p", false, EPOCH_MS + 13_000));
        seconds(60).await;
        assert_eq!(written.of(USER), [(Online, 0), (Offline, 43)]);
        assert_eq!(handler.presence_of(USER).state, Offline);
    });
}

#[test]
fn a_steady_user_is_idle_in_time_and_never_offline() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        for _ in 0..120 {
            handler.user_sync(&sync("p", true, EPOCH_MS));
            seconds(4).await;
        }
        assert_eq!(written.of(USER), [(Online, 0), (Online, 60), (Unavailable, 300)]);
        let token = handler.bump_active(USER, None).await.unwrap();
        assert_eq!((token, written.of(USER).len()), (Token(4), 4));
        assert_eq!(handler.bump_active(USER, None).await.unwrap(), Token(4), "there is nothing to write");
    });
}

#[test]
fn the_users_of_a_silent_process_go_offline() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        seconds(10).await;
        handler.user_sync(&sync("p", true, EPOCH_MS));
        seconds(4).await;
        handler.user_sync(&sync("p", true, EPOCH_MS + 14_000));
        seconds(60).await;
        // Twenty seconds after the last announcement, and at least thirty after the user was known to sync.
        assert_eq!(written.of(USER), [(Online, 10), (Offline, 44)]);
    });
}

#[test]
fn the_users_of_a_cleared_process_go_offline_unless_another_serves_them() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        handler.user_sync(&sync("p1", true, EPOCH_MS));
        handler.user_sync(&sync("p2", true, EPOCH_MS));
        handler.clear_user_sync("p1");
        for _ in 0..10 {
            handler.user_sync(&sync("p2", true, EPOCH_MS));
            seconds(4).await;
        }
        handler.clear_user_sync("p2");
        seconds(60).await;
        assert_eq!(written.of(USER), [(Online, 0), (Online, 60), (Offline, 70)]);
    });
}

#[test]
fn users_that_were_online_before_a_restart_get_time_to_be_announced_again() {
    on_paused_clock(|env| async move {
        let before = |user_id: &str, state| UserPresence { state, ..UserPresence::unknown(user_id) };
        let states = vec![before(USER, Online), before("@gone:hs", Unavailable), before("@off:hs", Offline)];
        let (handler, written) = writer(states, &env);
        seconds(29).await;
        handler.user_sync(&sync("p", true, EPOCH_MS + 29_000));
        seconds(5).await;
        assert_eq!(written.of("@gone:hs"), [(Offline, 30)]);
        assert_eq!(written.of(USER), [(Unavailable, 0)], "not active for long, and not offline");
        assert_eq!(written.of("@off:hs"), []);
        seconds(60).await;
        assert_eq!(written.of(USER).last(), Some(&(Offline, 59)), "the process was silent again");
    });
}

#[test]
fn a_peers_clock_that_is_ahead_keeps_no_user_online() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        handler.user_sync(&sync("p", true, EPOCH_MS + 3_600_000));
        handler.user_sync(&sync("p", false, EPOCH_MS + 3_600_000));
        seconds(60).await;
        assert_eq!(written.of(USER), [(Online, 0), (Offline, 30)]);
    });
}

#[test]
fn a_clients_change_is_written_before_the_request_is_answered() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        written.write_time.set(Duration::from_secs(1));
        let away = SetState { status_msg: Some("away".into()), ..request(Unavailable) };
        assert_eq!(handler.set_state(USER, away).await.unwrap(), Token(1));
        assert_eq!(handler.presence_of(USER).state, Unavailable);
        // A sync leaves the message alone.
        let sync = SetState { is_sync: true, ..request(Online) };
        assert_eq!(handler.set_state(USER, sync.clone()).await.unwrap(), Token(2));
        assert_eq!(handler.presence_of(USER).status_msg.as_deref(), Some("away"));
        assert_eq!(handler.set_state(USER, sync.clone()).await.unwrap(), Token(2), "nothing to write");
        let forced = SetState { force_notify: true, ..sync };
        assert_eq!(handler.set_state(USER, forced).await.unwrap(), Token(3));
        assert_eq!(handler.set_state(USER, request(Offline)).await.unwrap(), Token(4));
        assert_eq!(handler.presence_of(USER).status_msg, None);
    });
}

#[test]
fn changes_are_written_one_after_the_other_and_retried() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        written.write_time.set(Duration::from_secs(2));
        written.failures.set(2);
        let other = Rc::clone(&handler);
        let first = env.tasks.spawn(tasks::OPERATION, async move { other.set_state(USER, request(Online)).await });
        seconds(1).await;
        // Meanwhile it changes twice: only the last state is written.
        handler.user_sync(&sync("p", true, EPOCH_MS));
        let token = handler.set_state(USER, request(Unavailable)).await.unwrap();
        handler.idle().await;
        let first = first.await.unwrap().unwrap();
        assert!(first < token, "{first} {token}");
        assert!(written.of(USER).iter().all(|(state, _)| *state == Unavailable), "{:?}", written.of(USER));
    });
}

#[test]
fn a_follower_applies_rows_and_ignores_announcements() {
    on_paused_clock(|env| async move {
        let handler = PresenceHandler::on_follower(Vec::new(), env);
        handler.user_sync(&sync("p", true, EPOCH_MS));
        assert_eq!(handler.presence_of(USER).state, Offline);
        assert!(matches!(handler.set_state(USER, request(Online)).await, Err(PresenceError::NotTheWriter)));
        let row = |state| Row::Presence(UserPresence { state, ..UserPresence::unknown(USER) }.into());
        handler.apply(Token(5), &row(Online));
        handler.apply(Token(4), &row(Unavailable));
        seconds(3_600).await;
        assert_eq!(handler.presence_of(USER).state, Online);
        handler.idle().await;
    });
}

#[test]
fn two_devices_that_set_different_states_in_turn_write_one_row() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        let of =
            |device_id: &str, state| SetState { device_id: Some(device_id.into()), is_sync: true, ..request(state) };
        for _ in 0..20 {
            handler.set_state(USER, of("A", Online)).await.unwrap();
            handler.set_state(USER, of("B", Unavailable)).await.unwrap();
            seconds(1).await;
        }
        assert_eq!(written.of(USER), [(Online, 0)]);
        handler.set_state(USER, of("C", Busy)).await.unwrap();
        handler.set_state(USER, of("C", Online)).await.unwrap();
        assert_eq!(written.of(USER).last(), Some(&(Busy, 20)), "a sync leaves a busy device busy");
    });
}

#[test]
fn a_sync_of_one_device_does_not_override_what_was_set_on_another_or_on_itself() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        handler.set_state(USER, SetState { device_id: Some("phone".into()), ..request(Busy) }).await.unwrap();
        handler.user_sync(&sync("p", true, EPOCH_MS));
        handler.set_state(USER, request(Unavailable)).await.unwrap();
        // The process connects again.
        handler.clear_user_sync("p");
        handler.user_sync(&sync("q", true, EPOCH_MS));
        seconds(1).await;
        assert_eq!(written.of(USER), [(Busy, 0)]);
        handler.set_state(USER, SetState { device_id: Some("phone".into()), ..request(Offline) }).await.unwrap();
        assert_eq!(written.of(USER).last(), Some(&(Unavailable, 1)));
    });
}

#[test]
fn what_was_set_before_a_restart_holds_for_devices_that_are_announced_again() {
    on_paused_clock(|env| async move {
        let before = UserPresence { state: Unavailable, ..UserPresence::unknown(USER) };
        let (handler, written) = writer(vec![before], &env);
        seconds(10).await;
        let device_id = Some("phone".to_owned());
        for _ in 0..10 {
            handler.user_sync(&UserSync { device_id: device_id.clone(), ..sync("p", true, EPOCH_MS + 10_000) });
            seconds(10).await;
        }
        assert_eq!(written.of(USER), []);
        assert_eq!(handler.presence_of(USER).state, Unavailable);
    });
}

#[test]
fn a_request_that_changes_nothing_waits_for_the_change_that_is_being_written() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        written.write_time.set(Duration::from_secs(2));
        let other = Rc::clone(&handler);
        let first = env.tasks.spawn(tasks::OPERATION, async move { other.set_state(USER, request(Online)).await });
        seconds(1).await;
        assert_eq!(handler.set_state(USER, request(Online)).await.unwrap(), Token(1));
        assert_eq!(written.of(USER), [(Online, 2)]);
        assert_eq!(first.await.unwrap().unwrap(), Token(1));
    });
}

#[test]
fn a_user_whose_state_is_being_written_is_not_forgotten() {
    on_paused_clock(|env| async move {
        let (handler, written) = writer(Vec::new(), &env);
        handler.user_sync(&sync("p", true, EPOCH_MS));
        seconds(1).await;
        for number in 0..=OFFLINE_KEPT_MAX {
            handler.states.borrow_mut().insert(Token(1), UserPresence::unknown(&format!("@{number}:hs")));
        }
        written.failures.set(1);
        handler.clear_user_sync("p");
        seconds(60).await;
        assert!(handler.states.borrow().get("@7:hs").is_none(), "the others were forgotten");
        let presences = written.presences.borrow();
        let last = presences.last().map(|presence| (presence.state, presence.last_active_ms));
        assert_eq!(last, Some((Offline, EPOCH_MS)));
    });
}

/// Counts the announcements that are ignored.
#[derive(Default)]
struct Ignored(Cell<u32>);

impl squall_env::TaskObserver for Ignored {}

impl crate::observer::Observer for Ignored {
    fn event(&self, event: InstanceEvent<'_>) {
        assert!(matches!(event, InstanceEvent::AnnouncementIgnored { process: "p" }), "{event:?}");
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn devices_of_a_user_that_are_too_many_are_ignored_and_reported() {
    on_paused_clock(|env| async move {
        let ignored = Rc::new(Ignored::default());
        let (handler, _) = writer(Vec::new(), &Env { observer: ignored.clone(), ..env });
        let of = |device: usize, is_syncing| UserSync {
            device_id: Some(device.to_string()),
            ..sync("p", is_syncing, EPOCH_MS)
        };
        for device in 0..SYNCING_OF_USER_MAX + 5 {
            handler.user_sync(&of(device, true));
        }
        assert_eq!(ignored.0.get(), 5);
        assert_eq!(handler.presence_of(USER).state, Online);
    });
}
