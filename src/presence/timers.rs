//! Changes of a user's presence over time, and the changes that a user's watchers are told of.
//!
//! ```text
//!       online, active --LAST_ACTIVE_GRANULARITY--> online
//! ```
//!
//! The time counts from the user's last activity. The other timers are those of the user's devices (`devices`).

use super::{PresenceState, UserPresence};

/// Time for which a device that is not syncing stays online, in milliseconds.
pub const SYNC_ONLINE_TIMEOUT_MS: i64 = 30_000;
/// Time after an activity for which a user counts as currently active, in milliseconds.
const LAST_ACTIVE_GRANULARITY_MS: i64 = 60_000;

/// Sets the user's state, which their devices give, and sets `currently_active` from the time of the last activity.
/// Returns the time until that changes.
pub(super) fn settle(presence: &mut UserPresence, state: PresenceState, active_ms_ago: i64) -> Option<i64> {
    presence.state = state;
    presence.currently_active = state == PresenceState::Online && active_ms_ago < LAST_ACTIVE_GRANULARITY_MS;
    presence.currently_active.then_some(LAST_ACTIVE_GRANULARITY_MS - active_ms_ago)
}

/// Returns true if the change from `old` to `new` must be sent to the user's watchers. Activity alone is sent only after
/// a while, and not while the user counts as currently active.
pub(super) fn should_notify(old: &UserPresence, new: &UserPresence) -> bool {
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

    fn online() -> UserPresence {
        let mut online = UserPresence { last_active_ms: NOW, last_user_sync_ms: NOW, ..UserPresence::unknown("@a:hs") };
        settle(&mut online, PresenceState::Online, 0);
        online
    }

    #[test]
    fn an_online_user_is_currently_active_for_a_while_after_an_activity() {
        let mut presence = online();
        assert_eq!(settle(&mut presence, PresenceState::Online, 59_999), Some(1));
        assert!(presence.currently_active);
        assert_eq!(settle(&mut presence, PresenceState::Online, 60_000), None);
        assert!(!presence.currently_active);
        for state in [PresenceState::Offline, PresenceState::Unavailable, PresenceState::Busy] {
            assert_eq!(settle(&mut presence, state, 0), None);
            assert_eq!((presence.state, presence.currently_active), (state, false));
        }
    }

    #[test]
    fn a_change_of_state_or_message_is_sent_and_a_little_activity_is_not() {
        let base = online();
        let with = |change: fn(&mut UserPresence)| {
            let mut changed = base.clone();
            change(&mut changed);
            should_notify(&base, &changed)
        };
        assert!(with(|new| new.state = PresenceState::Unavailable));
        assert!(with(|new| new.status_msg = Some("away".into())));
        assert!(with(|new| new.currently_active = false));
        assert!(!with(|new| new.last_user_sync_ms += 1_000_000));
        assert!(!with(|new| new.last_active_ms += 1_000_000));
        let idle = UserPresence { state: PresenceState::Unavailable, currently_active: false, ..base.clone() };
        assert!(should_notify(&idle, &UserPresence { last_active_ms: idle.last_active_ms + 60_001, ..idle.clone() }));
        assert!(!should_notify(&idle, &UserPresence { last_active_ms: idle.last_active_ms + 60_000, ..idle.clone() }));
    }
}
