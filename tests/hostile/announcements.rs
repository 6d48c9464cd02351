//! Processes that announce ever new users to the presence writer.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use squall::observer::{InstanceEvent, Observer, process_env};
use squall::presence::{PersistPresence, PresenceConfig, PresenceHandler, SYNCING_MAX, UserPresence};
use squall::streams::UpdateError;
use squall_env::{LocalBoxFuture, TaskObserver};
use squall_protocol::{Token, UserSync};
use tokio::time::sleep;

use crate::memory::Watch;
use crate::run;

/// Memory that all users together may take while they sync, in bytes.
const SYNCING_BYTES_MAX: usize = 250_000_000;
/// Memory that may be left after all of them have gone offline, in bytes.
const LEFT_BYTES_MAX: isize = 1_000_000;
/// Number of users beyond the limit.
const TOO_MANY: usize = 1_000;

/// A presence stream that keeps no rows.
#[derive(Default)]
struct Discarded(Rc<Cell<i64>>);

impl PersistPresence for Discarded {
    fn persist(&self, states: Vec<UserPresence>) -> LocalBoxFuture<'static, Result<Token, UpdateError>> {
        self.0.set(self.0.get() + states.len() as i64);
        let token = Token(self.0.get());
        Box::pin(async move { Ok(token) })
    }

    fn position(&self) -> Token {
        Token(self.0.get())
    }
}

/// Counts the announcements that are ignored.
#[derive(Default)]
struct Ignored(Cell<usize>);

impl TaskObserver for Ignored {}

impl Observer for Ignored {
    fn event(&self, event: InstanceEvent<'_>) {
        let InstanceEvent::AnnouncementIgnored { process: "process" } = event else { panic!("{event:?}") };
        self.0.set(self.0.get() + 1);
    }
}

fn announcement(user: usize, is_syncing: bool) -> UserSync {
    let (user_id, device_id) = (format!("@user{user}:squall.test"), Some(format!("DEVICE{user}")));
    UserSync { instance_id: "process".into(), user_id, device_id, is_syncing, last_sync_ms: 0 }
}

/// Announces users as `announce` does, checks that those beyond the limit are ignored and that the memory is bounded, ends
/// their syncs, and checks that the memory is given back.
fn announces(case: &str, ignored_of_each: usize, announce: impl Fn(&PresenceHandler, usize)) {
    run(async {
        let ignored = Rc::new(Ignored::default());
        let env = process_env(Ipv4Addr::LOCALHOST.into(), ignored.clone());
        let config = PresenceConfig::default();
        let handler = PresenceHandler::on_writer(Vec::new(), Rc::new(Discarded::default()), &config, env);
        let watch = Watch::begin();
        for user in 0..SYNCING_MAX + TOO_MANY {
            announce(&handler, user);
        }
        assert_eq!(ignored.0.get(), TOO_MANY * ignored_of_each, "{case}");
        handler.idle().await;
        watch.assert_below(SYNCING_BYTES_MAX, case);
        handler.clear_user_sync("process");
        sleep(Duration::from_secs(120)).await;
        assert!(watch.held() < LEFT_BYTES_MAX, "{case}: {} bytes are left", watch.held());
    });
}

#[test]
fn users_who_sync_take_a_bounded_memory_and_give_it_back() {
    announces("users who sync", 1, |handler, user| handler.user_sync(&announcement(user, true)));
}

#[test]
fn users_who_have_just_stopped_take_a_bounded_memory_and_give_it_back() {
    announces("users who have stopped", 2, |handler, user| {
        handler.user_sync(&announcement(user, true));
        handler.user_sync(&announcement(user, false));
    });
}
