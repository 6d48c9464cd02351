//! The commands with structured arguments, one file each: type, parser and text.

mod federation_ack;
mod lock_released;
mod position;
pub(crate) mod rdata;
mod user_ip;
mod user_sync;

pub use federation_ack::FederationAck;
pub use lock_released::LockReleased;
pub use position::Position;
pub use rdata::{Rdata, RdataHeader};
pub use user_ip::UserIp;
pub use user_sync::{SIGN_OF_LIFE_INTERVAL, SIGNS_OF_LIFE, UserSync};
