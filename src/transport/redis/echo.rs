//! Detects a subscription that no longer hears what this instance publishes.
//!
//! An instance has two connections to the broker's name. After a failover the name may lead to another server, while the
//! old one lives on: a connection that broke is made again to the new server, and the other one stays where it is. Every
//! ping is answered, and nothing arrives any more (go-redis #583, Synapse #16984). So an instance publishes numbers on a
//! channel of its own, and listens to that channel. A number that the broker has taken reaches the subscription before
//! the answer to a later ping does. If it is not there one ping interval after that answer, the two connections lead to
//! different servers, and the instance makes both again.

use std::cell::Cell;

use rand::RngExt;

use squall_env::SeedTree;

/// The numbers that one process publishes for itself.
#[derive(Debug)]
pub struct Echo {
    channel: String,
    /// The last number that was published.
    published: Cell<u64>,
    /// The last number that the broker has taken.
    taken: Cell<u64>,
    /// The last number that arrived, or that need not arrive any more.
    heard: Cell<u64>,
}

impl Echo {
    /// Creates the numbers of one process of an instance of `server_name`. `seeds` is the process's own.
    pub fn new(server_name: &str, seeds: &SeedTree) -> Self {
        let id: u64 = seeds.child("echo").rng().random();
        let channel = format!("{server_name}/echo/{id:016x}");
        Echo { channel, published: Cell::new(0), taken: Cell::new(0), heard: Cell::new(0) }
    }

    /// Returns the channel, which no other process uses.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Returns the number to publish next.
    pub(super) fn next(&self) -> u64 {
        self.published.set(self.published.get() + 1);
        self.published.get()
    }

    /// Records that the broker has taken `number`.
    pub(super) fn taken(&self, number: u64) {
        self.taken.set(number);
    }

    /// Returns the last number that the broker has taken.
    pub(super) fn last_taken(&self) -> u64 {
        self.taken.get()
    }

    /// Records a payload that arrived on the channel.
    pub(super) fn arrived(&self, payload: &[u8]) {
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        self.heard.set(number.unwrap_or(0).max(self.heard.get()));
    }

    /// Records a new subscription: numbers that were published before it need not arrive.
    pub(super) fn subscribed(&self) {
        self.heard.set(self.published.get());
    }

    /// Returns true if `number` has arrived, or need not.
    pub(super) fn has_heard(&self, number: u64) -> bool {
        number <= self.heard.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_heard_once_it_has_arrived() {
        let echo = Echo::new("squall.test", &SeedTree::from_seed(1));
        assert!(echo.has_heard(echo.last_taken()), "nothing was published");
        let number = echo.next();
        assert!(echo.has_heard(echo.last_taken()), "the broker has not taken it");
        echo.taken(number);
        assert!(!echo.has_heard(echo.last_taken()));
        echo.arrived(b"nonsense");
        assert!(!echo.has_heard(echo.last_taken()));
        echo.arrived(number.to_string().as_bytes());
        assert!(echo.has_heard(echo.last_taken()));
    }

    #[test]
    fn a_number_that_was_published_before_the_subscription_need_not_arrive() {
        let echo = Echo::new("squall.test", &SeedTree::from_seed(1));
        let number = echo.next();
        echo.subscribed();
        echo.taken(number);
        assert!(echo.has_heard(echo.last_taken()));
        echo.taken(echo.next());
        assert!(!echo.has_heard(echo.last_taken()));
    }

    #[test]
    fn each_process_has_a_channel_of_its_own() {
        let channel = |seed| Echo::new("squall.test", &SeedTree::from_seed(seed)).channel().to_owned();
        assert_ne!(channel(1), channel(2));
        assert!(channel(1).starts_with("squall.test/echo/"));
    }
}
