//! Bytes in, commands out, and back.

pub mod http;
pub mod tcp;
