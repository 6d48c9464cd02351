//! Bytes in, commands out, and back.

pub mod http;
#[cfg(feature = "redis")]
pub mod redis;
pub mod tcp;
