//! A running process of a homeserver. Master, writer and worker are the same program with different configuration.

pub mod config;
mod endpoints;
mod error;
mod events_writer;
mod network;
mod outstanding;
mod presence;
mod running;
mod shared_receipts;
mod start;
mod stream_writer;
mod user_data;

pub use config::{Config, ConfigError};
pub use error::StartError;
pub use events_writer::{EventsWriter, Write};
pub use running::{Instance, STOP_GRACE};
pub use shared_receipts::ReceiptsError;
pub use stream_writer::{IdempotencyKey, PersistError, StreamWriter};
