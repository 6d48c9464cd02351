//! The shared database: transactions, schema, and the generators of stream ids.
//!
//! Every instance of a deployment works on one database and meets the others only there and through replication. The
//! SQL is portable; what differs between a real file and the storm's in-memory database is a [`Backend`].

pub mod account_data;
pub mod cache_invalidation;
pub mod current_state;
pub mod database;
pub mod events;
pub mod id_generator;
mod id_load;
pub mod id_state;
pub mod instance_map;
#[cfg(test)]
pub(crate) mod memory;
pub mod position;
pub mod presence;
pub mod receipts;
pub mod schema;
pub mod sqlite;
pub mod to_device;
pub mod transactions;

pub use database::{Backend, Closure, Database, DatabaseError, Job, Session};
pub use events::{NewEvent, StateDelta};
pub use id_generator::{AllocateError, Allocation, IdGenerator, IdGeneratorOptions, LoadError};
pub use instance_map::{InstanceId, InstanceMap};
pub use position::VectorPosition;
pub use sqlite::SqliteBackend;
pub use transactions::RequestId;
