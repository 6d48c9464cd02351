//! Commands as payloads on a Redis broker: what Synapse runs on.
//!
//! Each instance has two connections, and each of them is lost and made again by itself. On one it has subscribed
//! ([`stay_subscribed`]) to the channel that is called as the homeserver: whatever anybody says there everybody hears,
//! whoever said it included. On the other one it publishes ([`keep_publishing`]).
//!
//! Redis keeps nothing. What is published while somebody's subscription is down they never get, and of what was published
//! on a connection that broke nobody knows how much the broker took. Rows do not say what came before them, so neither
//! would be noticed. Therefore
//!
//! - whoever has subscribed anew asks for everybody's positions, by `REPLICATE`, once the broker has acknowledged that;
//!   and takes rows only of writers that have answered (Synapse #7427);
//! - whoever publishes anew tells their positions before the next row, so that everybody fetches what was lost;
//! - both are noticed: either connection is pinged, and given up when the broker does not answer (Synapse #9218).

mod connection;
mod meter;
mod publisher;
mod subscriber;

pub use connection::{Broker, BrokerError, PING_INTERVAL, REPLY_BYTES_MAX, REPLY_TIMEOUT, WAITING_BYTES_MAX, answer};
pub use meter::Limits;
pub use publisher::{keep_publishing, publish_once};
pub use subscriber::{Messages, stay_subscribed, subscribe};

/// The channel of `USER_IP`, which only the master listens to (Synapse #12672).
pub fn user_ip_channel(server_name: &str) -> String {
    format!("{server_name}/USER_IP")
}
