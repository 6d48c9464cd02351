//! TLS on the way to one address.

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

/// A network on which one address, such as the broker's, is spoken to over TLS. Whatever else there is to connect to,
/// and every port, is as on the network below it.
pub struct TlsNetwork {
    below: Rc<dyn Network>,
    to: Address,
    name: ServerName<'static>,
    connector: TlsConnector,
}

/// Why nobody can be spoken to over TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The other end has to prove that it has this name.
    #[error("{0:?} is neither a host name nor an address, so no certificate can be of it")]
    Host(Arc<str>),
    /// A file of the configuration cannot be used.
    #[error("cannot use {}: {error}. It has to be a file with {expected} in PEM", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What has to be in it.
        expected: &'static str,
        /// Why it cannot be used.
        error: Box<dyn Error + Send + Sync>,
    },
    /// There is half of what proves who we are.
    #[error("certificate_file and private_key_file go together: give both, or neither")]
    Half,
    /// Nobody is trusted.
    #[error("this machine trusts no certificate authority: install its certificates, or name a ca_file")]
    TrustsNobody,
    /// The certificate and the key are of no use.
    #[error("the certificate and its key cannot be used: {0}")]
    Own(rustls::Error),
}

impl TlsNetwork {
    /// `below`, with TLS on the way `to` one address.
    ///
    /// # Errors
    /// The files of `config` cannot be used, or nobody would be trusted.
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
                stream.map_err(|error| io::Error::new(error.kind(), format!("no TLS with {to}: {error}")))
            };
            // Whoever accepts and then says nothing would be waited for for ever.
            match tokio::time::timeout(CONNECT_TIMEOUT, shaken_hands).await {
                Ok(stream) => Ok(Box::new(stream?) as BoxStream),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no TLS with {to}: it says nothing"))),
            }
        })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.below.listen(port)
    }
}

/// The authorities that are trusted: those of the file alone, if there is one, and otherwise the machine's.
fn trusted(config: &TlsConfig) -> Result<RootCertStore, TlsError> {
    let mut trusted = RootCertStore::empty();
    if let Some(file) = &config.ca_file {
        for certificate in read_certificates(file)? {
            trusted.add(certificate).map_err(unusable(file, CERTIFICATES))?;
        }
        return Ok(trusted);
    }
    // A machine has many, and some that cannot be read, which is none of ours.
    match trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs) {
        (0, _) => Err(TlsError::TrustsNobody),
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

    /// Connections to those who say nothing.
    struct Mute;

    impl Network for Mute {
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
            unreachable!("nobody connects")
        }
    }

    /// A file that no other test has.
    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("squall-{}-{name}-{:?}.pem", std::process::id(), std::thread::current().id()))
    }

    /// What it is to speak TLS to `broker`, with an authority that is trusted.
    fn network(config: TlsConfig) -> Result<TlsNetwork, TlsError> {
        let file = scratch("authority");
        std::fs::write(&file, rcgen::generate_simple_self_signed(["broker".to_owned()]).unwrap().cert.pem()).unwrap();
        let config = TlsConfig { ca_file: Some(file.clone()), ..config };
        let network = TlsNetwork::new(Rc::new(Mute), Address::new("broker", 6379), &config);
        std::fs::remove_file(file).unwrap();
        network
    }

    #[test]
    fn one_who_accepts_and_says_nothing_is_given_up_and_others_are_none_of_ours() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let network = network(TlsConfig::default()).unwrap();
            let began = tokio::time::Instant::now();
            let connecting = network.connect(&Address::new("broker", 6379));
            let connected = tokio::time::timeout(2 * CONNECT_TIMEOUT, connecting).await.expect("it is given up");
            let error = connected.err().expect("nobody answers");
            assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, CONNECT_TIMEOUT));
            for other in [Address::new("broker", 6380), Address::new("writer1", 6379)] {
                assert!(network.connect(&other).await.is_ok());
            }
            assert!(began.elapsed() < CONNECT_TIMEOUT + Duration::from_secs(1));
        });
    }

    #[test]
    fn what_cannot_be_used_is_named() {
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
        let error = TlsNetwork::new(Rc::new(Mute), Address::new("broker", 6379), &config).err().unwrap().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.starts_with(&format!("cannot use {}: ", file.display())), "{error}");
    }
}
