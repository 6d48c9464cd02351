//! TLS on connections to one address.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::network::CONNECT_TIMEOUT;
use super::{Address, BoxStream, Listener, LocalBoxFuture, Network, TlsConfig};

/// A network that speaks TLS to one address, such as a broker's. All other connections, and all ports, are those of the
/// network below it.
pub struct TlsNetwork {
    below: Rc<dyn Network>,
    to: Address,
    name: ServerName<'static>,
    connector: TlsConnector,
}

/// The configuration of TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A certificate proves a host name or an address, and this is neither.
    #[error("{0:?} is neither a host name nor an address, so no certificate can prove it: correct the host")]
    Host(Arc<str>),
    /// A file of the configuration cannot be used.
    #[error("cannot use {}: {error}. The file must hold {expected} in PEM", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The content that the file must have.
        expected: &'static str,
        /// The cause.
        error: Box<dyn Error + Send + Sync>,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("certificate_file and private_key_file go together: give both, or neither")]
    Half,
    /// The machine has no trusted authority.
    #[error("this machine trusts no certificate authority: install its certificates, or name a ca_file")]
    NoAuthority,
    /// The client's certificate and its key do not fit.
    #[error("the client's certificate and its key cannot be used: {0}")]
    Own(rustls::Error),
}

impl TlsNetwork {
    /// The network `below`, with TLS on connections `to` one address.
    ///
    /// # Errors
    /// A file of `config` cannot be used, or there is no certificate authority to trust.
    pub fn new(below: Rc<dyn Network>, to: Address, config: &TlsConfig) -> Result<TlsNetwork, TlsError> {
        let name = ServerName::try_from(to.host.to_string()).map_err(|_| TlsError::Host(Arc::clone(&to.host)))?;
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let client = client.with_safe_default_protocol_versions().expect("the provider has what they need");
        let client = client.with_root_certificates(trusted(config)?);
        let client = match (&config.certificate_file, &config.private_key_file) {
            (Some(certificates), Some(key)) => {
                client.with_client_auth_cert(read_certificates(certificates)?, read_key(key)?).map_err(TlsError::Own)?
            }
            (None, None) => client.with_no_client_auth(),
            _ => return Err(TlsError::Half),
        };
        Ok(TlsNetwork { below, to, name, connector: TlsConnector::from(Arc::new(client)) })
    }
}

impl Network for TlsNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let connecting = self.below.connect(to);
        if *to != self.to {
            return connecting;
        }
        let (to, name, connector) = (to.clone(), self.name.clone(), self.connector.clone());
        Box::pin(async move {
            let shaken_hands = async {
                let stream = connecting.await?;
                let stream = connector.connect(name, stream).await;
                stream.map_err(|error| io::Error::new(error.kind(), format!("no TLS with {to}: {}", reason(&error))))
            };
            // A peer that accepts and then sends nothing would hold the caller for ever.
            match tokio::time::timeout(CONNECT_TIMEOUT, shaken_hands).await {
                Ok(stream) => Ok(Box::new(stream?) as BoxStream),
                Err(_) => {
                    let nothing = "the peer sent nothing, as one may that does not speak TLS";
                    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no TLS with {to}: {nothing}")))
                }
            }
        })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.below.listen(port)
    }
}

/// Returns the reason for which a handshake failed.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => format!("the peer does not speak TLS ({error})"),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("the peer closed the connection, as one does that does not speak TLS ({error})")
        }
        _ => error.to_string(),
    }
}

/// Returns the trusted authorities: those of the file alone, if there is one, and otherwise the machine's.
fn trusted(config: &TlsConfig) -> Result<RootCertStore, TlsError> {
    let mut trusted = RootCertStore::empty();
    if let Some(file) = &config.ca_file {
        for certificate in read_certificates(file)? {
            trusted.add(certificate).map_err(unusable(file, CERTIFICATES))?;
        }
        return Ok(trusted);
    }
    // A machine has many authorities. Some may be unreadable, which does not concern the others.
    match trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs) {
        (0, _) => Err(TlsError::NoAuthority),
        _ => Ok(trusted),
    }
}

const CERTIFICATES: &str = "certificates";

fn unusable<E: Into<Box<dyn Error + Send + Sync>>>(path: &Path, expected: &'static str) -> impl Fn(E) -> TlsError {
    move |error| TlsError::File { path: path.to_owned(), expected, error: error.into() }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.and_then(|certificates| match &certificates[..] {
        [] => Err(pem::Error::NoItemsFound),
        _ => Ok(certificates),
    });
    certificates.map_err(unusable(path, CERTIFICATES))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(unusable(path, "a private key"))
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::time::Duration;

    use super::*;

    /// Connects to peers that send nothing.
    struct SilentPeers;

    impl Network for SilentPeers {
        fn connect(&self, _to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
            Box::pin(async {
                let (near, far) = tokio::io::duplex(1024);
                tokio::task::spawn_local(async move {
                    let _far = far;
                    future::pending::<()>().await;
                });
                Ok(Box::new(near) as BoxStream)
            })
        }

        fn listen(&self, _port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
            unreachable!("no port is opened")
        }
    }

    /// A file of this test alone.
    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("squall-{}-{name}-{:?}.pem", std::process::id(), std::thread::current().id()))
    }

    /// A network that speaks TLS to `broker` and trusts one authority.
    fn network(config: TlsConfig) -> Result<TlsNetwork, TlsError> {
        let file = scratch("authority");
        std::fs::write(&file, rcgen::generate_simple_self_signed(["broker".to_owned()]).unwrap().cert.pem()).unwrap();
        let config = TlsConfig { ca_file: Some(file.clone()), ..config };
        let network = TlsNetwork::new(Rc::new(SilentPeers), Address::new("broker", 6379), &config);
        std::fs::remove_file(file).unwrap();
        network
    }

    #[test]
    fn a_silent_peer_times_out_and_other_addresses_are_unaffected() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let network = network(TlsConfig::default()).unwrap();
            let began = tokio::time::Instant::now();
            let connecting = network.connect(&Address::new("broker", 6379));
            let connected = tokio::time::timeout(2 * CONNECT_TIMEOUT, connecting).await.expect("it is given up");
            let error = connected.err().expect("no peer answers");
            assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, CONNECT_TIMEOUT));
            for other in [Address::new("broker", 6380), Address::new("writer1", 6379)] {
                assert!(network.connect(&other).await.is_ok());
            }
            assert!(began.elapsed() < CONNECT_TIMEOUT + Duration::from_secs(1));
        });
    }

    #[test]
    fn an_unusable_configuration_is_named() {
        let refused = |config| network(config).err().expect("it cannot be used").to_string();
        let half = TlsConfig { certificate_file: Some("squall.pem".into()), ..TlsConfig::default() };
        assert!(refused(half).starts_with("certificate_file and private_key_file go together"));
        let (certificate, key) = (Some("no-such.pem".into()), Some("no-such.key".into()));
        let missing = TlsConfig { certificate_file: certificate, private_key_file: key, ca_file: None };
        assert!(refused(missing).starts_with("cannot use no-such.pem: "));
        let file = scratch("no-authority");
        let text = "-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n";
        std::fs::write(&file, text).unwrap();
        let config = TlsConfig { ca_file: Some(file.clone()), ..TlsConfig::default() };
        let error =
            TlsNetwork::new(Rc::new(SilentPeers), Address::new("broker", 6379), &config).err().unwrap().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.starts_with(&format!("cannot use {}: ", file.display())), "{error}");
    }
}
