//! The commands that are allowed in each direction.
//!
//! Over TCP a command in the wrong direction makes the receiver close the connection, as an unknown one does. Over Redis
//! every command is broadcast to all instances, the sender included.

use super::command::Command;

/// The direction of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// TCP, from the instance that listens.
    ServerToClient,
    /// TCP, from the instance that connected.
    ClientToServer,
    /// Redis, to all instances.
    Broadcast,
}

impl Direction {
    /// Returns true if a command may be sent in this direction.
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
