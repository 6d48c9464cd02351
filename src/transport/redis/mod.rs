//! Carries commands as payloads on a Redis broker, as in a Synapse deployment.
//!
//! Each instance keeps two connections to the broker, which reconnect independently. On one it subscribes
//! ([`stay_subscribed`]) to the channel named after the homeserver, on which every instance receives every command, its own
//! included. On the other it publishes ([`keep_publishing`]).
//!
//! Redis stores no messages. An instance misses what is published while its subscription is down, and after a publishing
//! connection breaks it is unknown which payloads the broker received. A row does not name the row before it, so neither
//! loss would be noticed. Therefore
//!
//! - after each subscription an instance sends `REPLICATE` once the broker has acknowledged the subscription, and accepts
//!   rows only of writers that have announced their positions since (Synapse #7427);
//! - after each reconnect a publisher announces its positions before its next row, so that followers fetch lost rows;
//! - before that, it ends its old connection at the broker, whose last bytes would arrive late;
//! - both connections are pinged, and closed if the broker does not answer (Synapse #9218);
//! - both connections are made again if the instance does not hear what it publishes ([`Echoes`]).

mod connection;
mod echo;
mod message_splitter;
mod name_check;
mod predecessor;
mod publisher;
mod read_limiter;
pub mod resp;
mod sentinel;
mod subscriber;

pub use connection::{Broker, BrokerError, PING_INTERVAL, REPLY_BYTES_MAX, REPLY_TIMEOUT, WAITING_BYTES_MAX, answer};
pub use echo::Echoes;
pub use message_splitter::Message;
pub use name_check::{NAME_CHECK_INTERVAL, keep_checking_name};
pub use publisher::{keep_publishing, publish_on_new_connection};
pub use read_limiter::Limits;
pub use subscriber::{Messages, stay_subscribed, subscribe};

/// Returns the channel of `USER_IP`, to which only the master subscribes (Synapse #12672).
pub fn user_ip_channel(server_name: &str) -> String {
    format!("{server_name}/USER_IP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_of_user_ips_is_synapses() {
        assert_eq!(user_ip_channel("matrix.org"), "matrix.org/USER_IP");
    }
}
