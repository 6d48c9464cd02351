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
    /// The host name, or the path of the broker's Unix socket. Not used with `sentinel`.
    #[serde(default)]
    pub host: Arc<str>,
    /// The port. Not used with `sentinel`.
    #[serde(default = "default_redis_port")]
    pub port: u16,
    /// The user, if the broker has several.
    #[serde(default)]
    pub user: Option<String>,
    /// The password, if the broker requires one.
    #[serde(default)]
    pub password: Option<String>,
    /// The TLS settings, if connections to the broker use TLS. The network that the instance is given applies them.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// The sentinels that know where the broker is, if it has no fixed address.
    #[serde(default)]
    pub sentinel: Option<SentinelConfig>,
}

/// The sentinels of a Redis deployment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentinelConfig {
    /// The name of the master that serves as the broker.
    pub master: String,
    /// The sentinels. They are asked in this order.
    pub addresses: Vec<Address>,
    /// The password of the sentinels, if they require one.
    #[serde(default)]
    pub password: Option<String>,
}

/// Returns the port on which Redis listens by default.
fn default_redis_port() -> u16 {
    6379
}

impl fmt::Debug for RedisConfig {
    /// Writes everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisConfig { host, port, user, password, tls, sentinel } = self;
        let mut text = f.debug_struct("RedisConfig");
        text.field("host", host).field("port", port).field("user", user).field("password", &secret(password));
        text.field("tls", tls).field("sentinel", sentinel).finish()
    }
}

impl fmt::Debug for SentinelConfig {
    /// Writes everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SentinelConfig { master, addresses, password } = self;
        let mut text = f.debug_struct("SentinelConfig");
        text.field("master", master).field("addresses", addresses).field("password", &secret(password)).finish()
    }
}

/// Returns what is written in place of a password.
fn secret(password: &Option<String>) -> Option<&'static str> {
    password.as_ref().map(|_| "(secret)")
}

impl RedisConfig {
    /// Returns the configuration of a broker without credentials at this address.
    pub fn at(host: impl Into<Arc<str>>, port: u16) -> Self {
        RedisConfig { host: host.into(), port, user: None, password: None, tls: None, sentinel: None }
    }

    /// Returns the broker's address. It is not known beforehand if sentinels name it.
    pub fn address(&self) -> Address {
        Address::new(Arc::clone(&self.host), self.port)
    }
}

impl fmt::Display for RedisConfig {
    /// Writes the broker's address, or the name by which the sentinels know it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sentinel {
            Some(SentinelConfig { master, .. }) => write!(f, "{master}, as sentinels know it"),
            None => write!(f, "{}", self.address()),
        }
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
        let config = RedisConfig { password: Some("precious".into()), ..RedisConfig::at("h", 1) };
        let text = format!("{config:?}");
        assert!(text.contains("(secret)") && !text.contains("precious"), "{text}");
    }
}
