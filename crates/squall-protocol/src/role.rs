//! The ends that a connection can have.

use super::Framing;

/// The end of a connection that an instance holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// TCP: the instance connected. It receives rows.
    Client,
    /// TCP: the instance accepted the connection. It sends rows.
    Server,
    /// Redis: the instance subscribed. It receives the rows of every instance, its own included, and sends nothing.
    Subscriber,
    /// Redis: the instance publishes. It sends its rows to every instance and receives nothing.
    Publisher,
}

impl Role {
    /// Returns the encoding of commands on this connection.
    pub fn framing(self) -> Framing {
        match self {
            Role::Client | Role::Server => Framing::Lines,
            Role::Subscriber | Role::Publisher => Framing::Payloads,
        }
    }
}
