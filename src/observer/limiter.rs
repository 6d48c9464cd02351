//! Bounds what peers can make an instance log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Largest number of lines of one kind about one subject in a [`WINDOW`].
const LINES_MAX: u64 = 10;
/// Time for which lines of one kind about one subject are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Largest number of subjects that are counted each by itself.
const SUBJECTS_MAX: usize = 100;

/// Counts lines by their kind and subject: a peer, or a stream.
#[derive(Debug, Default)]
pub(super) struct Limiter(RefCell<BTreeMap<(&'static str, String), Window>>);

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u64,
}

impl Limiter {
    /// Counts a line. Returns none if it must be left out, and otherwise the number of lines like it that were left out
    /// since the last one.
    pub(super) fn count(&self, kind: &'static str, subject: &str) -> Option<u64> {
        let now = Instant::now();
        let is_old = |window: &Window| now.duration_since(window.since) >= WINDOW;
        let mut windows = self.0.borrow_mut();
        let mut key = (kind, subject.to_owned());
        if windows.len() >= SUBJECTS_MAX && !windows.contains_key(&key) {
            windows.retain(|_, window| !is_old(window));
            if windows.len() >= SUBJECTS_MAX {
                key.1.clear(); // all further subjects together
            }
        }
        let window = windows.entry(key).or_insert(Window { since: now, lines: 0 });
        let mut left_out = 0;
        if is_old(window) {
            left_out = window.lines.saturating_sub(LINES_MAX);
            *window = Window { since: now, lines: 0 };
        }
        window.lines += 1;
        (window.lines <= LINES_MAX).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_lines_of_a_kind_about_a_peer_are_written_in_ten_seconds() {
        let limiter = Limiter::default();
        for _ in 0..LINES_MAX {
            assert_eq!(limiter.count("connection", "a"), Some(0));
        }
        assert_eq!(limiter.count("connection", "a"), None);
        assert_eq!(limiter.count("connection", "b"), Some(0));
        assert_eq!(limiter.count("row", "a"), Some(0));
        for _ in 0..4 {
            assert_eq!(limiter.count("connection", "a"), None);
        }
        tokio::time::sleep(WINDOW).await;
        assert_eq!(limiter.count("connection", "a"), Some(5));
        assert_eq!(limiter.count("connection", "a"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn peers_with_ever_new_names_share_their_lines() {
        let limiter = Limiter::default();
        let written = (0..10_000).filter(|name| limiter.count("connection", &name.to_string()).is_some()).count();
        assert_eq!(written as u64, SUBJECTS_MAX as u64 + LINES_MAX);
        assert!(limiter.0.borrow().len() <= SUBJECTS_MAX + 1);
        tokio::time::sleep(WINDOW).await;
        assert_eq!(limiter.count("connection", "another"), Some(0));
    }
}
