//! The [`Engine`](crate::Engine) trait for this engine.

use std::rc::Rc;

use super::Engine;
use crate::{Connection, LatencyRange, Main, SlowReader, Unsupported};

impl crate::Engine for Engine {
    fn start(&self, host: &str, main: Main) {
        self.start(host, |network| main(Rc::new(network)));
    }

    fn boot(&self, host: &str) -> u64 {
        self.boot(host)
    }

    fn is_up(&self, host: &str) -> bool {
        self.is_up(host)
    }

    fn stop(&self, host: &str) -> bool {
        self.stop(host)
    }

    fn power_cut(&self, host: &str) -> bool {
        self.power_cut(host)
    }

    fn connections(&self, a: &str, b: &str) -> Vec<Connection> {
        self.connections(a, b)
    }

    fn connections_to(&self, client: &str, server: &str, port: u16) -> Vec<Connection> {
        self.connections_to(client, server, port)
    }

    fn cut(&self, connection: &Connection) -> bool {
        self.cut(connection)
    }

    fn partition(&self, from: &str, to: &str) {
        self.partition(from, to);
    }

    fn heal(&self, from: &str, to: &str) {
        self.heal(from, to);
    }

    fn held(&self, from: &str, to: &str) -> u64 {
        self.held(from, to)
    }

    fn sent(&self, from: &str, to: &str) -> u64 {
        self.sent(from, to)
    }

    fn set_latency(&self, from: &str, to: &str, latency: LatencyRange) {
        self.set_latency(from, to, latency);
    }

    fn reset_latency(&self, from: &str, to: &str) {
        self.reset_latency(from, to);
    }

    fn half_open(&self, gone: &str, survivor: &str, port: u16) -> Result<Option<Connection>, Unsupported> {
        let connection = self.connections(gone, survivor).into_iter().find(|open| open.port == port);
        Ok(connection.filter(|connection| self.half_open(connection, gone)))
    }

    fn answer(&self, connection: &Connection) -> Result<(), Unsupported> {
        self.answer(connection);
        Ok(())
    }

    fn stall(&self, from: &str, to: &str, port: u16) -> Result<Option<Connection>, Unsupported> {
        let connection = self.connections(from, to).into_iter().find(|open| open.port == port);
        Ok(connection.filter(|connection| self.stall(connection, from)))
    }

    fn release(&self, connection: &Connection) -> Result<usize, Unsupported> {
        Ok(self.release(connection))
    }

    fn set_bandwidth(&self, from: &str, to: &str, bytes_per_sec: Option<u64>) -> Result<(), Unsupported> {
        self.set_bandwidth(from, to, bytes_per_sec);
        Ok(())
    }

    fn freeze(&self, host: &str) -> Result<bool, Unsupported> {
        Ok(self.freeze(host))
    }

    fn thaw(&self, host: &str) -> Result<bool, Unsupported> {
        Ok(self.thaw(host))
    }

    fn is_frozen(&self, host: &str) -> bool {
        self.is_frozen(host)
    }

    fn slow_reader(&self, host: &str, slow: Option<SlowReader>) -> Result<(), Unsupported> {
        self.slow_reader(host, slow);
        Ok(())
    }

    fn slowed(&self, host: &str) -> u64 {
        self.slowed(host)
    }
}
