//! When nobody but the stack can be to blame for a syncing user's going offline.
//!
//! The connection has to have been steady: positions came in on it all the time, so both processes were alive and
//! nothing was cut. What went the other way may have been held up all the same, by a partition of one direction. So:
//!
//! - *at any time* the instance is to blame if it has not said for the whole expiry that the user syncs, though it
//!   could have: then the presence writer could but take it for dead;
//! - *in the calm*, when nothing is held up for long, somebody is to blame if the user was announced, and the
//!   connection steady, for longer than anything said before may take to have its effect.

use super::connections::{Connection, Said};
use crate::judge::observation::Moment;

/// How long a user who is announced may still go offline, because that was decided before: the time that users are
/// given after their last sync, in which the longest resend and the slowest transaction of a calm have room.
const GRACE_MS: u64 = 30_000;

/// Whether the user of whom `said` was said on `connection` cannot rightly be offline at `at`.
pub(super) fn is_to_blame(
    at: Moment,
    connection: &Connection,
    said: Said,
    expiry_ms: u64,
    calm_at: Option<Moment>,
) -> bool {
    let Some(steady_since) = connection.steady_since(at) else { return false };
    let is_neglected = at.ms_since(said.last.max(steady_since)) >= expiry_ms;
    let is_known = calm_at.is_some_and(|calm_at| at.ms_since(calm_at.max(said.first).max(steady_since)) >= GRACE_MS);
    is_neglected || is_known
}
