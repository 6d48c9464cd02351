//! Detects a subscription that no longer hears what this instance publishes.
//!
//! An instance has two connections to the broker's name. After a failover the name may lead to another server, while the
//! old one lives on: a connection that broke is made again to the new server, and the other one stays where it is. Every
//! ping is answered, and nothing arrives any more (go-redis #583, Synapse #16984). So an instance publishes numbers on
//! channels of its own, and listens to them:
//!
//! - on the connection on which it publishes, because the subscription may be at another server;
//! - now and then on a new connection to the name ([`name_check`](super::name_check)), because both connections may have
//!   stayed at the old server, where they hear each other and no other instance (seed 20083 of `redis_swarm`).
//!
//! A number that the broker has taken reaches the subscription before the answer to a later ping does. If it is not there
//! one ping interval after that answer, the instance makes both connections again.

use std::cell::Cell;

use rand::RngExt;

use squall_env::SeedTree;

/// The numbers that one process publishes for itself.
#[derive(Debug)]
pub struct Echoes {
    /// Those on the connection on which the instance publishes.
    pub(super) publishing: Echo,
    /// Those on new connections.
    pub(super) by_name: Echo,
}

impl Echoes {
    /// Creates the numbers of one process of an instance of `server_name`. `seeds` is the process's own.
    pub fn new(server_name: &str, seeds: &SeedTree) -> Self {
        let id: u64 = seeds.child("echo").rng().random();
        let echo = |kind| Echo::new(format!("{server_name}/{kind}/{id:016x}"));
        Echoes { publishing: echo("echo"), by_name: echo("echo_by_name") }
    }

    fn both(&self) -> [&Echo; 2] {
        [&self.publishing, &self.by_name]
    }

    /// Returns the channels, which no other process uses.
    pub(super) fn channels(&self) -> [&str; 2] {
        self.both().map(|echo| &*echo.channel)
    }

    /// Records a payload if its channel is one of these. Returns true if it is.
    pub(super) fn record(&self, channel: &str, payload: &[u8]) -> bool {
        let echo = self.both().into_iter().find(|echo| echo.channel == channel);
        echo.inspect(|echo| echo.arrived(payload)).is_some()
    }

    /// Records a new subscription: numbers that were published before it need not arrive.
    pub(super) fn subscribed(&self) {
        for echo in self.both() {
            echo.heard.set(echo.published.get());
        }
    }

    /// Returns the last numbers that a broker has taken, for [`has_heard`](Self::has_heard).
    pub(super) fn last_taken(&self) -> [u64; 2] {
        self.both().map(|echo| echo.taken.get())
    }

    /// Returns true if the numbers have arrived, or need not.
    pub(super) fn has_heard(&self, numbers: [u64; 2]) -> bool {
        self.both().into_iter().zip(numbers).all(|(echo, number)| number <= echo.heard.get())
    }
}

/// The numbers of one channel.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) channel: String,
    /// The last number that was published.
    published: Cell<u64>,
    /// The last number that the broker has taken.
    taken: Cell<u64>,
    /// The last number that arrived, or that need not arrive any more.
    heard: Cell<u64>,
}

impl Echo {
    fn new(channel: String) -> Self {
        Echo { channel, published: Cell::new(0), taken: Cell::new(0), heard: Cell::new(0) }
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

    /// Records a payload that arrived on the channel.
    fn arrived(&self, payload: &[u8]) {
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        self.heard.set(number.unwrap_or(0).max(self.heard.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echoes(seed: u64) -> Echoes {
        Echoes::new("squall.test", &SeedTree::from_seed(seed))
    }

    #[test]
    fn a_number_is_heard_once_it_has_arrived() {
        let echoes = echoes(1);
        assert!(echoes.has_heard(echoes.last_taken()), "nothing was published");
        for echo in echoes.both() {
            let number = echo.next();
            assert!(echoes.has_heard(echoes.last_taken()), "the broker has not taken it");
            echo.taken(number);
            assert!(!echoes.has_heard(echoes.last_taken()));
            assert!(echoes.record(&echo.channel, b"nonsense"));
            assert!(!echoes.has_heard(echoes.last_taken()));
            assert!(!echoes.record("squall.test", number.to_string().as_bytes()), "not its channel");
            assert!(!echoes.has_heard(echoes.last_taken()));
            assert!(echoes.record(&echo.channel, number.to_string().as_bytes()));
            assert!(echoes.has_heard(echoes.last_taken()));
        }
    }

    #[test]
    fn a_number_that_was_published_before_the_subscription_need_not_arrive() {
        let echoes = echoes(1);
        for echo in echoes.both() {
            let number = echo.next();
            echoes.subscribed();
            echo.taken(number);
            assert!(echoes.has_heard(echoes.last_taken()));
            echo.taken(echo.next());
            assert!(!echoes.has_heard(echoes.last_taken()));
            echoes.subscribed();
        }
    }

    #[test]
    fn each_process_has_channels_of_its_own() {
        let [one, by_name] = echoes(1).channels().map(str::to_owned);
        assert_ne!(one, by_name);
        assert!(echoes(2).channels().iter().all(|other| ![&*one, &*by_name].contains(other)));
        assert!(one.starts_with("squall.test/echo/"));
    }
}
