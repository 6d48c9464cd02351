//! Carries commands and requests between instances: over TCP, over a Redis broker, and over HTTP.

pub(crate) mod accept;
pub(crate) mod altered;
mod config;
pub mod http;
#[cfg(feature = "redis")]
pub mod redis;
pub mod tcp;
pub(crate) mod tls_mismatch;

pub use config::{InstanceLocation, RedisConfig, SentinelConfig};
