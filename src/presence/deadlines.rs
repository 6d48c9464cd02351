//! The deadlines at which users' presence changes without an event.

use std::collections::{BTreeMap, BTreeSet};

/// One deadline for each user, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    in_order: BTreeSet<(i64, String)>,
    by_user: BTreeMap<String, i64>,
}

impl Deadlines {
    /// Replaces or removes the user's deadline.
    pub(super) fn set(&mut self, user_id: &str, at_ms: Option<i64>) {
        if let Some(before) = self.by_user.remove(user_id) {
            self.in_order.remove(&(before, user_id.to_owned()));
        }
        if let Some(at_ms) = at_ms {
            self.by_user.insert(user_id.to_owned(), at_ms);
            self.in_order.insert((at_ms, user_id.to_owned()));
        }
    }

    /// Returns the earliest deadline.
    pub(super) fn first_ms(&self) -> Option<i64> {
        self.in_order.first().map(|(at_ms, _)| *at_ms)
    }

    /// Removes and returns the users whose deadline has passed.
    pub(super) fn take_due(&mut self, now_ms: i64) -> Vec<String> {
        let mut due = Vec::new();
        while self.first_ms().is_some_and(|at_ms| at_ms <= now_ms)
            && let Some((_, user_id)) = self.in_order.pop_first()
        {
            self.by_user.remove(&user_id);
            due.push(user_id);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_deadline_and_the_earliest_comes_first() {
        let mut deadlines = Deadlines::default();
        deadlines.set("@a", Some(10));
        deadlines.set("@b", Some(20));
        deadlines.set("@c", Some(15));
        deadlines.set("@a", Some(30));
        deadlines.set("@c", None);
        assert_eq!(deadlines.first_ms(), Some(20));
        assert_eq!(deadlines.take_due(19), [""; 0]);
        assert_eq!(deadlines.take_due(30), ["@b", "@a"]);
        assert_eq!(deadlines.first_ms(), None);
    }
}
