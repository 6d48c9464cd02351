//! Times in which payloads may have been missed.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;

use crate::observation::SimTime;

/// Number of gaps that are remembered. All of them are counted.
pub const GAPS_KEPT_MAX: usize = 1_000;

/// A time in which payloads may have been missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Its beginning.
    pub since: SimTime,
    /// Its end.
    pub until: SimTime,
    /// The reason.
    pub why: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { since, until, why } = self;
        write!(f, "payloads from {since} to {until} may have been missed: {why}")
    }
}

/// The gaps of a recording, or of live traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    /// The last [`GAPS_KEPT_MAX`] of them.
    pub last: VecDeque<Gap>,
    /// The number of all of them.
    pub count: u64,
    /// Their total length, in milliseconds.
    pub ms: u64,
}

impl Gaps {
    /// Adds a gap after the others.
    pub fn add(&mut self, gap: Gap) {
        self.count += 1;
        self.ms = self.ms.saturating_add(gap.until.ms_since(gap.since));
        self.last.push_back(gap);
        if self.last.len() > GAPS_KEPT_MAX {
            self.last.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_gaps_are_kept_and_all_are_counted() {
        let mut gaps = Gaps::default();
        for number in 0..3 * GAPS_KEPT_MAX as u64 {
            gaps.add(Gap { since: SimTime(10 * number), until: SimTime(10 * number + 3), why: String::new() });
        }
        assert_eq!((gaps.last.len(), gaps.count, gaps.ms), (GAPS_KEPT_MAX, 3_000, 9_000));
        assert_eq!(gaps.last[0].since, SimTime(20_000));
    }
}
