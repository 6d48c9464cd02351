//! What becomes of a user's presence by itself: a state machine over the time, pure.
//!
//! ```text
//!   online, active --LAST_ACTIVE_GRANULARITY--> online --IDLE_TIMER--> unavailable
//!         any but offline, nobody syncing --SYNC_ONLINE_TIMEOUT--> offline
//! ```
//!
//! The first line counts from when the user was last active. The second counts from when they were last active or
//! synced, whichever is later, so that a client between two syncs does not flicker.

use super::{PresenceState, UserPresence};

/// How long a user who is not syncing stays online, in milliseconds.
pub const SYNC_ONLINE_TIMEOUT_MS: i64 = 30_000;
/// After how long without activity a user is idle, in milliseconds.
pub const IDLE_TIMER_MS: i64 = 5 * 60_000;
/// How long a user counts as active right now, in milliseconds.
pub const LAST_ACTIVE_GRANULARITY_MS: i64 = 60_000;

/// What `presence` is at `now_ms`, if nothing was heard in between, and when to look at it again.
pub fn at(now_ms: i64, presence: &UserPresence, is_syncing: bool) -> (UserPresence, Option<i64>) {
    let mut presence = presence.clone();
    let offline_at = presence.last_user_sync_ms.max(presence.last_active_ms) + SYNC_ONLINE_TIMEOUT_MS;
    if !is_syncing && offline_at <= now_ms {
        presence.state = PresenceState::Offline;
    }
    let (idle_at, inactive_at) =
        (presence.last_active_ms + IDLE_TIMER_MS, presence.last_active_ms + LAST_ACTIVE_GRANULARITY_MS);
    if presence.state == PresenceState::Online && idle_at <= now_ms {
        presence.state = PresenceState::Unavailable;
    }
    let is_online = presence.state == PresenceState::Online;
    presence.currently_active = is_online && now_ms < inactive_at;
    if presence.is_offline() {
        return (presence, None);
    }
    let deadlines = [
        (!is_syncing).then_some(offline_at),
        is_online.then_some(idle_at),
        presence.currently_active.then_some(inactive_at),
    ];
    let next = deadlines.into_iter().flatten().min();
    (presence, next)
}

/// Whether `new` says anything that those who watch the user must know. Of activity they want to know only after a
/// while, and not at all as long as the user is active right now.
pub fn is_news(old: &UserPresence, new: &UserPresence) -> bool {
    let was_active_later = new.last_active_ms > old.last_active_ms + LAST_ACTIVE_GRANULARITY_MS;
    old.state != new.state
        || old.status_msg != new.status_msg
        || old.currently_active != new.currently_active
        || (was_active_later && !new.currently_active)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    /// Online, last active and last seen syncing so long ago.
    fn online(active_ms_ago: i64, synced_ms_ago: i64) -> UserPresence {
        UserPresence {
            state: PresenceState::Online,
            last_active_ms: NOW - active_ms_ago,
            last_user_sync_ms: NOW - synced_ms_ago,
            currently_active: true,
            ..UserPresence::unknown("@a:hs")
        }
    }

    /// State, whether active right now, and when to look again, from now.
    fn later(presence: &UserPresence, is_syncing: bool) -> (PresenceState, bool, Option<i64>) {
        let (presence, next) = at(NOW, presence, is_syncing);
        (presence.state, presence.currently_active, next.map(|next| next - NOW))
    }

    #[test]
    fn a_syncing_user_is_active_then_online_then_idle_and_never_offline() {
        use PresenceState::{Online, Unavailable};
        assert_eq!(later(&online(0, 0), true), (Online, true, Some(60_000)));
        assert_eq!(later(&online(59_999, 59_999), true), (Online, true, Some(1)));
        assert_eq!(later(&online(60_000, 60_000), true), (Online, false, Some(240_000)));
        assert_eq!(later(&online(300_000, 300_000), true), (Unavailable, false, None));
        assert_eq!(later(&online(NOW, NOW), true), (Unavailable, false, None));
    }

    #[test]
    fn a_user_who_is_not_syncing_goes_offline_thirty_seconds_after_the_last_sign_of_life() {
        use PresenceState::{Offline, Online};
        assert_eq!(later(&online(1_000, 29_999), false), (Online, true, Some(29_000)));
        assert_eq!(later(&online(100_000, 29_999), false), (Online, false, Some(1)));
        assert_eq!(later(&online(30_000, 30_000), false), (Offline, false, None));
        let idle = UserPresence { state: PresenceState::Unavailable, ..online(30_000, 40_000) };
        assert_eq!(later(&idle, false), (Offline, false, None));
    }

    #[test]
    fn nothing_happens_to_who_is_offline() {
        let offline = UserPresence::unknown("@a:hs");
        assert_eq!(at(NOW, &offline, false), (offline.clone(), None));
        assert_eq!(at(NOW, &offline, true), (offline, None));
    }

    #[test]
    fn looking_again_at_the_time_told_changes_something() {
        for (active_ms_ago, synced_ms_ago) in [(0, 0), (10_000, 20_000), (61_000, 5_000), (250_000, 29_000)] {
            for is_syncing in [true, false] {
                let (now, next) = at(NOW, &online(active_ms_ago, synced_ms_ago), is_syncing);
                let next = next.unwrap();
                assert_eq!(at(next - 1, &now, is_syncing), (now.clone(), Some(next)));
                assert!(is_news(&now, &at(next, &now, is_syncing).0));
            }
        }
    }

    #[test]
    fn a_change_of_state_or_message_is_news_and_a_little_activity_is_not() {
        let (base, _) = at(NOW, &online(0, 0), true);
        let with = |change: fn(&mut UserPresence)| {
            let mut changed = base.clone();
            change(&mut changed);
            is_news(&base, &changed)
        };
        assert!(with(|new| new.state = PresenceState::Unavailable));
        assert!(with(|new| new.status_msg = Some("away".into())));
        assert!(with(|new| new.currently_active = false));
        assert!(!with(|new| new.last_user_sync_ms += 1_000_000));
        assert!(!with(|new| new.last_active_ms += 1_000_000));
        let idle = UserPresence { state: PresenceState::Unavailable, currently_active: false, ..base.clone() };
        assert!(is_news(&idle, &UserPresence { last_active_ms: idle.last_active_ms + 60_001, ..idle.clone() }));
        assert!(!is_news(&idle, &UserPresence { last_active_ms: idle.last_active_ms + 60_000, ..idle.clone() }));
    }
}
