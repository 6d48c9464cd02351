//! The shared database: transactions, schema, stream ids, and the SQL of each stream.
//!
//! Every instance of a deployment works on one database. Instances communicate through it and through replication only.
//! The SQL is portable. The [`Backend`] differs between a real file and the simulator's in-memory database.

pub mod current_state;
pub mod database;
mod doubt;
mod id_generator;
mod id_load;
mod id_state;
pub mod instance_map;
mod json_column;
#[cfg(test)]
pub(crate) mod memory;
mod obstacle;
mod query;
pub mod repair;
pub mod schema;
mod sequences;
mod source;
mod sqlite;
pub mod transactions;

pub use database::{Backend, Closure, Database, DatabaseError, Job, Session, TRANSACTIONS_WAITING_MAX};
pub use doubt::RENEWED_WITHIN;
#[cfg(feature = "sim")]
pub(crate) use id_generator::CHECK;
pub use id_generator::{AllocateError, Allocation, Checked, IdGenerator};
pub use id_load::{IdGeneratorOptions, LoadError};
pub use json_column::JsonColumn;
pub use obstacle::{Obstacle, Unwritable};
pub use query::UpdatesQuery;
pub use sequences::last_allocated;
pub use source::Source;
pub use sqlite::{BUSY_TIMEOUT, SqliteBackend};
pub use transactions::RequestId;

/// Declares the module of each stream whose rows are in the database, and [`SOURCES`].
macro_rules! sources {
    ($($stream:ident),+ $(,)?) => {
        $(pub mod $stream;)+

        /// The streams whose rows are in the database.
        pub const SOURCES: [Source; [$(stringify!($stream)),+].len()] = [$($stream::SOURCE),+];
    };
}

// The order of the lines is the order in which an instance starts the streams.
sources! {
    events,
    receipts,
    to_device,
    account_data,
    presence,
    caches,
}
