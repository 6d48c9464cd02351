//! Byte streams between processes.
//!
//! Everything above this seam, such as a line protocol, hyper or the `redis` client, is the same over real sockets and
//! over a simulated network.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::LocalBoxFuture;

/// The longest connection attempt. After it an attempt fails with [`io::ErrorKind::TimedOut`].
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected, ordered, reliable byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A [`Stream`] of any kind.
pub type BoxStream = Box<dyn Stream>;

/// The address of a port: a host name and a number. Or the path of a Unix socket. In a configuration a port is written as
/// `HOST:PORT`, and an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Host name, resolved by the network. If it begins with `/`, it is the path of a Unix socket.
    pub host: Arc<str>,
    /// TCP port. A Unix socket has none.
    pub port: u16,
}

impl Address {
    /// The address of `port` on `host`.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Address { host: host.into(), port }
    }

    /// Returns the path, if this is the address of a Unix socket.
    pub fn socket_path(&self) -> Option<&Path> {
        self.host.starts_with('/').then(|| Path::new(&*self.host))
    }
}

/// A text that is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: write HOST:PORT")]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let bad = || NotAnAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        // The brackets only tell the colons of an IPv6 address from that of the port.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() { Err(bad()) } else { Ok(Address::new(host, port)) }
    }
}

impl TryFrom<String> for Address {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_path() {
            Some(path) => write!(f, "{}", path.display()),
            None if self.host.contains(':') => write!(f, "[{}]:{}", self.host, self.port),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The certificates of a TLS client. All files are in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificates of the trusted authorities; the machine's own if absent.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and its chain, for a server that asks for one.
    pub certificate_file: Option<PathBuf>,
    /// The key of the client's certificate.
    pub private_key_file: Option<PathBuf>,
}

impl TlsConfig {
    /// Returns the same configuration with relative paths resolved from `folder`.
    pub fn resolved_from(self, folder: &Path) -> Self {
        let seen = |file: Option<PathBuf>| file.map(|file| folder.join(file));
        TlsConfig {
            ca_file: seen(self.ca_file),
            certificate_file: seen(self.certificate_file),
            private_key_file: seen(self.private_key_file),
        }
    }
}

/// Accepts connections on one port. Dropping it closes the port.
pub trait Listener {
    /// Waits for the next connection. Cancel-safe.
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>>;
}

/// Opens connections and ports.
pub trait Network {
    /// Connects to `to`; fails with [`io::ErrorKind::TimedOut`] after [`CONNECT_TIMEOUT`].
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>>;
    /// Opens `port` of this host for connections.
    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>>;
}

/// tokio's sockets. Ports are open on loopback alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioNetwork;

/// tokio's sockets. Ports are open on this address alone; the unspecified address stands for all.
#[derive(Debug, Clone, Copy)]
pub struct BoundNetwork(pub IpAddr);

impl Network for TokioNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let to = to.clone();
        Box::pin(async move {
            if let Some(path) = to.socket_path() {
                return in_time(connect_unix(path)).await;
            }
            let stream = in_time(tokio::net::TcpStream::connect((&*to.host, to.port))).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        BoundNetwork(Ipv4Addr::LOCALHOST.into()).listen(port)
    }
}

/// Waits for a connection attempt, for at most [`CONNECT_TIMEOUT`].
async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(unix)]
async fn connect_unix(path: &Path) -> io::Result<BoxStream> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn connect_unix(_path: &Path) -> io::Result<BoxStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}

impl Network for BoundNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        TokioNetwork.connect(to)
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = (self.0, port);
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

impl Listener for tokio::net::TcpListener {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            let (stream, _) = tokio::net::TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_a_port_of_a_host_or_as_a_path() {
        assert_eq!(Address::new("localhost", 6379).to_string(), "localhost:6379");
        assert_eq!(Address::new("/run/redis.sock", 0).to_string(), "/run/redis.sock");
        assert_eq!(Address::new("::1", 6379).to_string(), "[::1]:6379");
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        assert_eq!("a.example:26379".parse(), Ok(Address::new("a.example", 26_379)));
        assert_eq!("[::1]:26379".parse(), Ok(Address::new("::1", 26_379)));
        for bad in ["a", "a:", ":26379", "a:b", "a:99999", "[]:1"] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert_eq!(error, format!("{bad:?} is not an address: write HOST:PORT"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_is_connected_to_as_a_unix_socket() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let path = std::env::temp_dir().join(format!("squall-env-{}.sock", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let address = Address::new(path.to_str().unwrap(), 0);
            let connecting = TokioNetwork.connect(&address);
            let (connected, accepted) = tokio::join!(connecting, listener.accept());
            accepted.unwrap().0.write_all(b"here").await.unwrap();
            let mut received = String::new();
            connected.unwrap().read_to_string(&mut received).await.unwrap();
            assert_eq!(received, "here");
            drop(listener);
            std::fs::remove_file(&path).unwrap();
            assert!(TokioNetwork.connect(&address).await.is_err(), "there is no socket any more");
        });
    }
}
