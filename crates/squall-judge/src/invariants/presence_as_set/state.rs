//! The states of a device or user, in the order in which they count.

use std::collections::BTreeSet;

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

/// Returns the greatest states of all choices of one state from each set.
pub(super) fn combined(options: &[BTreeSet<State>]) -> BTreeSet<State> {
    let least = options.iter().filter_map(|states| states.first()).max().copied().unwrap_or(State::Offline);
    let mut combined: BTreeSet<State> = options.iter().flatten().copied().filter(|state| *state >= least).collect();
    combined.insert(least);
    combined
}

/// Returns states in words.
pub(super) fn in_words(states: &BTreeSet<State>) -> String {
    let names: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    names.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Busy, Offline, Online, Unavailable};

    #[test]
    fn the_greatest_state_counts_for_each_choice() {
        let sets = |options: &[&[State]]| -> Vec<State> {
            let options: Vec<BTreeSet<State>> = options.iter().map(|states| states.iter().copied().collect()).collect();
            combined(&options).into_iter().collect()
        };
        assert_eq!(sets(&[]), [Offline]);
        assert_eq!(sets(&[&[Online], &[Unavailable]]), [Online]);
        assert_eq!(sets(&[&[Offline, Busy], &[Unavailable]]), [Unavailable, Busy]);
        assert_eq!(sets(&[&[Offline, Unavailable], &[Offline, Online]]), [Offline, Unavailable, Online]);
    }
}
