//! The time after which a token that was not sent can come no more.
//!
//! A token of one writer may still be on its way when another writer has passed it. Payloads without times are only
//! counted.

use crate::observation::SimTime;

/// Number of payloads after which a token that was not sent counts as missing.
pub(super) const SETTLED_AFTER: u64 = 100;

/// Time during which a token does not count as missing, even after that many payloads, in milliseconds.
pub(super) const SETTLED_MS_MIN: u64 = 1_000;

/// Time after which a token counts as missing, even after fewer payloads, in milliseconds.
pub(super) const SETTLED_MS_MAX: u64 = 5_000;

/// The moment at which a token was passed.
#[derive(Debug, Clone, Copy)]
pub(super) struct PassedAt {
    /// The time, if that is known.
    pub at: Option<SimTime>,
    /// Number of payloads before it.
    pub payloads: u64,
}

impl PassedAt {
    /// Returns true if the token can come no more, `now` and after so many payloads.
    pub(super) fn is_settled(self, now: Option<SimTime>, payloads: u64) -> bool {
        let are_enough = payloads >= self.payloads + SETTLED_AFTER;
        let waited_ms = self.at.zip(now).map(|(at, now)| now.ms_since(at));
        waited_ms.map_or(are_enough, |ms| are_enough && ms >= SETTLED_MS_MIN || ms >= SETTLED_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_settled_after_a_time_or_after_fewer_with_many_payloads() {
        let passed = PassedAt { at: Some(SimTime(10)), payloads: 7 };
        let is_settled = |ms: u64, more: u64| passed.is_settled(Some(SimTime(10 + ms)), 7 + more);
        assert!(is_settled(SETTLED_MS_MAX, 0) && !is_settled(SETTLED_MS_MAX - 1, SETTLED_AFTER - 1));
        assert!(is_settled(SETTLED_MS_MIN, SETTLED_AFTER) && !is_settled(SETTLED_MS_MIN - 1, SETTLED_AFTER));
        let without_time = PassedAt { at: None, payloads: 7 };
        assert!(without_time.is_settled(None, 7 + SETTLED_AFTER) && !without_time.is_settled(None, 6 + SETTLED_AFTER));
    }
}
