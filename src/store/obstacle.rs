//! The causes for which the machine keeps a database from being written.

use std::fmt;

use rusqlite::ErrorCode;
use tokio::time::Instant;

/// A cause outside of Squall for which a transaction failed. It may pass, so a later attempt may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Another process holds the lock.
    Locked,
    /// The disk, or the share of it that the process may use, is full.
    Full,
    /// The file or its file system cannot be written.
    ReadOnly,
    /// The disk or its file system returned an error.
    DiskError,
    /// A file of the database cannot be opened.
    CannotOpen,
}

impl Obstacle {
    /// Returns the obstacle that SQLite met; `None` for every other error.
    pub(super) fn of(error: &rusqlite::Error) -> Option<Self> {
        match error.sqlite_error_code()? {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(Obstacle::Locked),
            ErrorCode::DiskFull => Some(Obstacle::Full),
            ErrorCode::ReadOnly => Some(Obstacle::ReadOnly),
            ErrorCode::SystemIoFailure => Some(Obstacle::DiskError),
            ErrorCode::CannotOpen => Some(Obstacle::CannotOpen),
            _ => None,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::Locked => "another process has locked the database",
            Obstacle::Full => "the disk is full",
            Obstacle::ReadOnly => "the database is read-only",
            Obstacle::DiskError => "the disk of the database returned an error",
            Obstacle::CannotOpen => "a file of the database cannot be opened",
        })
    }
}

/// A database that cannot be written at present. Its text is the reason, for an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwritable {
    /// The last obstacle that a transaction met.
    pub obstacle: Obstacle,
    /// The time from which on nothing was written.
    pub since: Instant,
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing could be written for {} s: {}", self.since.elapsed().as_secs(), self.obstacle)
    }
}
