//! Which commands may travel which way.
//!
//! Over TCP a command against its direction costs the peer its connection, as an unknown one does. Over Redis
//! everything is broadcast to everybody, the sender included.

use super::command::Command;

/// The way a command travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// TCP, from the instance that listens.
    ServerToClient,
    /// TCP, from the instance that connected.
    ClientToServer,
    /// Redis, to everybody.
    Broadcast,
}

impl Direction {
    /// Whether a command may travel this way.
    ///
    /// The lists are Synapse 1.163's. NEW_ACTIVE_TASK and CANCEL_TASK are in neither of its two for TCP.
    pub fn allows(self, command: &Command) -> bool {
        match command {
            Command::Server(_) | Command::Position(_) | Command::Rdata(_) => self != Direction::ClientToServer,
            Command::Name(_)
            | Command::Replicate
            | Command::UserSync(_)
            | Command::ClearUserSync(_)
            | Command::FederationAck(_)
            | Command::UserIp(_) => self != Direction::ServerToClient,
            Command::Ping(_) | Command::Error(_) | Command::RemoteServerUp(_) | Command::LockReleased(_) => true,
            Command::NewActiveTask(_) | Command::CancelTask(_) => self == Direction::Broadcast,
        }
    }
}
