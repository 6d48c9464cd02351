//! Sound connections: those on which a syncing user goes offline only by a fault of the stack.
//!
//! The connection has to be steady: positions arrived all the time, so both processes were alive and nothing was cut. Lines
//! in the other direction may have been delayed all the same, by a partition of one direction. So:
//!
//! - *at any time* the instance is at fault if it did not announce the user for the whole expiry, although it could have:
//!   the presence writer had to take it for dead;
//! - *in the calm*, when nothing is delayed for long, an instance is at fault if the user was announced, and the
//!   connection steady, for longer than any earlier line may take to have its effect.

use super::connections::{Announcement, Connection};
use crate::observation::SimTime;

/// Time in which an announced user may still go offline, because that was decided before. It is the grace that users have
/// after their last sync, and is longer than the longest resend and the slowest transaction of a calm.
const GRACE_MS: u64 = 30_000;

/// Returns true if a user announced on `connection` may not go offline at `at`.
pub(super) fn is_at_fault(
    at: SimTime,
    connection: &Connection,
    announced: Announcement,
    expiry_ms: u64,
    calm_at: Option<SimTime>,
) -> bool {
    let Some(steady_since) = connection.steady_since(at) else { return false };
    let is_neglected = at.ms_since(announced.last.max(steady_since)) >= expiry_ms;
    let is_known =
        calm_at.is_some_and(|calm_at| at.ms_since(calm_at.max(announced.first).max(steady_since)) >= GRACE_MS);
    is_neglected || is_known
}
