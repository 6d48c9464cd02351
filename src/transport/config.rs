//! Configuration of where the other instances and the Redis broker listen.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use squall_env::{Address, TlsConfig};

/// The host and the ports of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceLocation {
    /// The host name.
    pub host: Arc<str>,
    /// The port of the line protocol.
    pub replication_port: u16,
    /// The port of HTTP requests.
    pub http_port: u16,
}

impl InstanceLocation {
    /// Returns the address of the line protocol.
    pub fn replication_address(&self) -> Address {
        Address::new(Arc::clone(&self.host), self.replication_port)
    }

    /// Returns the address of HTTP requests.
    pub fn http_address(&self) -> Address {
        Address::new(Arc::clone(&self.host), self.http_port)
    }
}

/// The location of the Redis broker and the means to log in to it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// The host name, or the path of the broker's Unix socket.
    pub host: Arc<str>,
    /// The port.
    #[serde(default = "default_redis_port")]
    pub port: u16,
    /// The password, if the broker requires one.
    #[serde(default)]
    pub password: Option<String>,
    /// The TLS settings, if connections to the broker use TLS. The network that the instance is given applies them.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// Returns the port on which Redis listens by default.
fn default_redis_port() -> u16 {
    6379
}

impl fmt::Debug for RedisConfig {
    /// Writes everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisConfig { host, port, password, tls } = self;
        let password = password.as_ref().map(|_| "(secret)");
        let mut text = f.debug_struct("RedisConfig");
        text.field("host", host).field("port", port).field("password", &password).field("tls", tls).finish()
    }
}

impl RedisConfig {
    /// Returns the broker's address.
    pub fn address(&self) -> Address {
        Address::new(Arc::clone(&self.host), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_of_which_only_the_host_is_known_is_at_the_port_of_redis() {
        let config: RedisConfig = serde_json::from_str(r#"{ "host": "broker" }"#).unwrap();
        assert_eq!(config.address(), Address::new("broker", 6379));
        assert_eq!((config.password, config.tls), (None, None));
    }

    #[test]
    fn a_password_is_not_written_for_debugging() {
        let config = RedisConfig { host: "h".into(), port: 1, password: Some("precious".into()), tls: None };
        let text = format!("{config:?}");
        assert!(text.contains("(secret)") && !text.contains("precious"), "{text}");
    }
}
