//! The states of a device or user, in the order in which they count.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A state. Of the states of several devices the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Offline,
    Unavailable,
    Online,
    Busy,
}

impl State {
    const ALL: [State; 4] = [State::Offline, State::Unavailable, State::Online, State::Busy];

    /// Returns the state's name in rows.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Offline => "offline",
            State::Unavailable => "unavailable",
            State::Online => "online",
            State::Busy => "busy",
        }
    }

    /// Returns the state called `name`.
    pub(super) fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A set of states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct States(u8);

impl States {
    /// Returns true if `state` is one of them.
    pub(super) fn contains(self, state: State) -> bool {
        self.0 & Self::from(state).0 != 0
    }

    /// Returns the states without `state`.
    pub(super) fn without(self, state: State) -> Self {
        States(self.0 & !Self::from(state).0)
    }

    /// Returns the states, the least first.
    fn iter(self) -> impl DoubleEndedIterator<Item = State> {
        State::ALL.into_iter().filter(move |state| self.contains(*state))
    }

    /// Returns the greatest of them.
    pub(super) fn greatest(self) -> Option<State> {
        self.iter().next_back()
    }
}

impl BitOr for States {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        States(self.0 | other.0)
    }
}

impl BitOrAssign for States {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl From<State> for States {
    fn from(state: State) -> Self {
        States(1 << state as u8)
    }
}

impl FromIterator<State> for States {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> Self {
        states.into_iter().fold(States::default(), |set, state| set | state.into())
    }
}

/// Writes the states in words.
impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(State::as_str).collect();
        f.write_str(&names.join(" or "))
    }
}

/// Returns the greatest states of all choices of one state from each set.
pub(super) fn combined(options: impl Iterator<Item = States>) -> States {
    let (all, least) = options.fold((States::default(), State::Offline), |(all, least), states| {
        (all | states, states.iter().next().map_or(least, |first| first.max(least)))
    });
    all.iter().filter(|state| *state >= least).chain([least]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Busy, Offline, Online, Unavailable};

    #[test]
    fn the_greatest_state_counts_for_each_choice() {
        let sets = |options: &[&[State]]| -> Vec<State> {
            combined(options.iter().map(|states| states.iter().copied().collect())).iter().collect()
        };
        assert_eq!(sets(&[]), [Offline]);
        assert_eq!(sets(&[&[Online], &[Unavailable]]), [Online]);
        assert_eq!(sets(&[&[Offline, Busy], &[Unavailable]]), [Unavailable, Busy]);
        assert_eq!(sets(&[&[Offline, Unavailable], &[Offline, Online]]), [Offline, Unavailable, Online]);
    }
}
