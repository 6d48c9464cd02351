//! The line protocol over TCP, without a broker.
//!
//! The master and every instance that writes a stream listen. Every other instance connects to each of them.

mod client;
mod connection;
mod server;

pub use client::stay_connected;
pub use connection::{CLOSE_GRACE, ConnectionError, INTRODUCTION_TIMEOUT, LINE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT};
pub use server::accept_connections;
