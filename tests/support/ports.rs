//! Free ports of this machine.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Returns a listener on a free port. No other test of this program gets the same port.
///
/// The port is below the range from which the kernel takes ports for connections. A port in that range could be taken
/// by another connection before the server listens, or a client could connect to itself.
pub(crate) fn free_port() -> TcpListener {
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % u32::from(PORTS.end - PORTS.start);
    let mut ports = PORTS.map(|_| {
        let given = u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
        PORTS.start + ((first + given) % u32::from(PORTS.end - PORTS.start)) as u16
    });
    ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).expect("some port is free")
}
