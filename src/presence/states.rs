//! The presence of users, as far as an instance remembers it.

use std::collections::BTreeMap;

use super::UserPresence;
use squall_protocol::Token;

/// Number of users who are offline without a status message and are remembered all the same.
pub const OFFLINE_KEPT_MAX: usize = 100_000;

/// The presence of each user, on followers with the token of its row.
#[derive(Debug, Default)]
pub(super) struct States {
    by_user: BTreeMap<String, (Token, UserPresence)>,
    /// Number of users who are offline without a status message.
    offline: usize,
}

impl States {
    /// Returns these states.
    pub(super) fn of(states: Vec<(Token, UserPresence)>) -> Self {
        let mut all = States::default();
        for (token, presence) in states {
            all.insert(token, presence);
        }
        all.forget_offline(|_| false);
        all
    }

    /// Returns a user's presence; `None` if it is not remembered.
    pub(super) fn get(&self, user_id: &str) -> Option<&(Token, UserPresence)> {
        self.by_user.get(user_id)
    }

    /// Replaces a user's presence.
    pub(super) fn insert(&mut self, token: Token, presence: UserPresence) {
        self.offline += usize::from(says_nothing(&presence));
        let before = self.by_user.insert(presence.user_id.clone(), (token, presence));
        self.offline -= usize::from(before.is_some_and(|(_, presence)| says_nothing(&presence)));
    }

    /// Forgets the users who are offline without a status message, once there are more than [`OFFLINE_KEPT_MAX`], except
    /// those who are needed. Only the time of their last activity is lost, which the database has.
    pub(super) fn forget_offline(&mut self, is_needed: impl Fn(&str) -> bool) {
        if self.offline > OFFLINE_KEPT_MAX {
            self.by_user.retain(|user_id, (_, presence)| !says_nothing(presence) || is_needed(user_id));
            self.offline = self.by_user.values().filter(|(_, presence)| says_nothing(presence)).count();
        }
    }
}

/// Returns true if the presence is little more than that of an unknown user.
fn says_nothing(presence: &UserPresence) -> bool {
    presence.is_offline() && presence.status_msg.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::PresenceState;

    #[test]
    fn users_of_whom_there_is_nothing_to_say_are_forgotten_once_there_are_many() {
        let offline =
            |number: usize| UserPresence { last_active_ms: 5, ..UserPresence::unknown(&format!("@{number}:hs")) };
        let away = UserPresence { status_msg: Some("away".into()), ..UserPresence::unknown("@away:hs") };
        let online = UserPresence { state: PresenceState::Online, ..UserPresence::unknown("@online:hs") };
        let some = (0..OFFLINE_KEPT_MAX).map(offline).chain([away, online]).map(|presence| (Token(1), presence));
        let mut states = States::of(some.collect());
        assert_eq!(states.by_user.len(), OFFLINE_KEPT_MAX + 2);
        states.insert(Token(2), offline(0));
        states.forget_offline(|_| false);
        assert_eq!(states.by_user.len(), OFFLINE_KEPT_MAX + 2, "not one more");
        states.insert(Token(3), offline(OFFLINE_KEPT_MAX));
        states.forget_offline(|user_id| user_id == "@7:hs");
        assert_eq!(states.by_user.keys().collect::<Vec<_>>(), ["@7:hs", "@away:hs", "@online:hs"]);
        assert_eq!(states.offline, 1);
        states.insert(Token(4), UserPresence { state: PresenceState::Online, ..offline(7) });
        assert_eq!(states.offline, 0);
    }
}
