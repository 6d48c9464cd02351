//! How long the calm may last before whatever is still pending counts as stuck.

use std::time::Duration;

use super::clients::PATIENCE;
use super::engine::turmoil_net::RETRY_MAX;
use super::plan::{CLIENT_PAUSE_MS_MAX, CLIENT_TIMEOUT_MS_MAX, DEFERRAL_MS_MAX, DELAY_MS_MAX, EXTRA_MS_MAX};
use super::world::START_AGAIN_AFTER;
use crate::env::network::CONNECT_TIMEOUT;
use crate::instance::config::PresenceConfig;
use crate::presence::handler::EXPIRY_CHECK_INTERVAL;
use crate::presence::timers::SYNC_ONLINE_TIMEOUT_MS;
use crate::presence::user_syncs::{STOP_DELAY, SWEEP_INTERVAL};
use crate::replication::backoff::{DELAY_MAX, JITTER};
use crate::replication::streamer::{HEARTBEAT_INTERVAL, IDLE_ANNOUNCEMENT_INTERVAL};
use crate::sync::SINCE_WAIT_MAX;
use crate::transport::http::RESPONSE_TIMEOUT;
use crate::transport::tcp::{CLOSE_GRACE, PING_INTERVAL, PING_TIMEOUT};

/// How many polls may follow one from the other, through all tasks, from the first step to the last: some ten for each
/// of the steps below, and a catch-up takes several queries.
const POLLS_IN_A_ROW: u32 = 100;

/// The longest that a healthy network may need to bring everybody up to date, from the numbers of the protocol:
///
/// 0. what a partition held up is sent again by the network;
/// 1. a connection whose other end is gone is noticed by the ping time-out, looked at once every ping interval, and
///    dropped when the grace for saying goodbye is over, looked at as often;
/// 2. an attempt that was under way fails by its time-out, the next one comes after the longest back-off, and
///    connects;
/// 3. the catch-up that was waiting fails in the same way: connecting, asking, waiting for the longest back-off, and
///    then works;
/// 4. what is announced only by a heartbeat comes with the next one, and what moved only by other writers' rows one
///    announcement later;
/// 5. a transaction that was asked for while the database was slow goes on being slow: rows take effect late, and a
///    catch-up or a start that waited for its answer goes on late; a start that fails then is tried again;
/// 6. where polls are put off, each of those that follow one from the other may be;
/// 7. a client that waits somewhere for what is not coming gives up, pauses and asks once more;
/// 8. then everybody who syncs is announced. Whoever does not goes offline: a process that crashed is taken for dead
///    once its expiry is over, at the next look; or the end of a last sync is told when it was late enough for the
///    sweep, at the next one; and then the user is given time to come back.
///
/// The other faults leave nothing slower behind. What dripped arrives at the usual speed once the limit is lifted. A
/// connection that stays half open is what the first step is about. A process that was frozen finds what it missed in
/// its kernel, and reads it before it looks at its overdue timers.
///
/// All of it happens once at the most, because nothing fails any more.
pub fn calm_bound(presence: &PresenceConfig) -> Duration {
    let delay_max = DELAY_MAX.mul_f64(1.0 + JITTER);
    let notice = PING_TIMEOUT + PING_INTERVAL + CLOSE_GRACE + PING_INTERVAL;
    let reconnect = CONNECT_TIMEOUT + delay_max + CONNECT_TIMEOUT;
    let catch_up = CONNECT_TIMEOUT + RESPONSE_TIMEOUT + delay_max + CONNECT_TIMEOUT + RESPONSE_TIMEOUT;
    let announce = HEARTBEAT_INTERVAL + IDLE_ANNOUNCEMENT_INTERVAL;
    let deferral = POLLS_IN_A_ROW * Duration::from_millis(DEFERRAL_MS_MAX);
    let told = (presence.process_expiry() + EXPIRY_CHECK_INTERVAL).max(STOP_DELAY + SWEEP_INTERVAL);
    let offline = told + Duration::from_millis(SYNC_ONLINE_TIMEOUT_MS.unsigned_abs());
    let transaction = Duration::from_millis(EXTRA_MS_MAX + DELAY_MS_MAX + EXTRA_MS_MAX);
    let start = transaction + START_AGAIN_AFTER;
    let client = Duration::from_millis(CLIENT_TIMEOUT_MS_MAX + CLIENT_PAUSE_MS_MAX) + SINCE_WAIT_MAX + PATIENCE;
    RETRY_MAX + notice + reconnect + catch_up + announce + start + deferral + client + offline
}
