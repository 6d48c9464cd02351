//! A `redis-server` for the benchmark.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use squall::transport::RedisConfig;

/// A running `redis-server`. Dropping it ends the server.
pub(crate) struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts a server on a free port.
    pub(crate) async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let child = command.stdout(Stdio::null()).spawn();
        let child = child.expect("redis-server has to be installed: it is in Debian's package redis-server");
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Server { child, port }
    }

    /// Returns the configuration of instances that use this server.
    pub(crate) fn config(&self) -> RedisConfig {
        RedisConfig::at("127.0.0.1", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
