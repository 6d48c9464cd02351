//! The reasons for which an instance does not start.

use std::io;

use thiserror::Error;

use super::ConfigError;
use crate::store::{DatabaseError, LoadError};

/// The reason for which an instance did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The database did not begin a session.
    #[error("cannot begin a session in the database: {0}")]
    Database(#[from] DatabaseError),
    /// The stream positions in the database cannot be used.
    #[error("cannot load the positions of a stream: {0}")]
    Load(#[from] LoadError),
    /// The presence of users cannot be read from the database.
    #[error("cannot load the presence of users: {0}")]
    Presence(#[source] DatabaseError),
    /// A port cannot be opened.
    #[error("cannot listen on port {port}: {error}")]
    Listen {
        /// The port.
        port: u16,
        /// The error of the network.
        error: io::Error,
    },
}
