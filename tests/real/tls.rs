//! Connections to a broker over TLS, with client certificates.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use squall::observer::{InstanceEvent, Observer, process_env};
use squall::transport::RedisConfig;
use squall_env::{BoxStream, Listener, LocalBoxFuture, Noop, TaskObserver, TlsConfig};
use squall_protocol::rows::typing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::deployment::{Deployment, PATIENCE, Scratch};
use crate::follow_program::{Program, command};
use crate::server::{Kind, Server, on_both};

on_both! {
    instances_meet_over_tls;
    a_broker_with_the_certificate_of_another_authority_is_refused;
    a_client_without_a_certificate_is_refused;
    follow_listens_over_tls;
    a_port_for_tls_that_is_addressed_without_is_named;
    a_port_without_tls_that_is_addressed_with_it_is_named;
    a_broker_with_tls_that_is_addressed_without_it_is_named;
    a_broker_without_tls_that_is_addressed_with_it_is_named;
}

/// The certificates and keys of an authority, of a broker and an instance with its signature, and of another authority.
/// They are files in a folder. Dropping the last clone removes the folder.
#[derive(Clone)]
pub(crate) struct Certificates(Rc<Scratch>);

impl Certificates {
    fn new(test: &str) -> Self {
        let certificates = Certificates(Rc::new(Scratch::new(test)));
        let issuer = certificates.authority("ca");
        certificates.authority("other-ca");
        for name in ["broker", "squall"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, &issuer).unwrap();
            certificates.write(name, &certificate.pem(), &key);
        }
        certificates
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.write(name, &params.self_signed(&key).unwrap().pem(), &key);
        Issuer::new(params, key)
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        std::fs::write(self.certificate(name), certificate).unwrap();
        std::fs::write(self.key(name), key.serialize_pem()).unwrap();
    }

    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.pem"))
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.key"))
    }

    /// Returns the TLS settings of an instance that connects to the broker.
    pub(crate) fn config(&self) -> TlsConfig {
        TlsConfig {
            ca_file: Some(self.certificate("ca")),
            certificate_file: Some(self.certificate("squall")),
            private_key_file: Some(self.key("squall")),
        }
    }

    /// Returns a listener that accepts connections as the broker, from clients with a certificate of the authority.
    pub(crate) fn accept_on(&self, below: Box<dyn Listener>) -> Box<dyn Listener> {
        let read = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut trusted = RootCertStore::empty();
        trusted.add(read(&self.certificate("ca"))).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(trusted.into(), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_file(self.key("broker")).unwrap();
        let certificate = vec![read(&self.certificate("broker"))];
        let config = config.with_client_cert_verifier(clients).with_single_cert(certificate, key).unwrap();
        Box::new(TlsListener { below, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

struct TlsListener {
    below: Box<dyn Listener>,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    fn accept(&mut self) -> LocalBoxFuture<'_, std::io::Result<BoxStream>> {
        Box::pin(async move {
            loop {
                let stream = self.below.accept().await?;
                // A client that fails the handshake does not affect the next one.
                if let Ok(stream) = self.acceptor.accept(stream).await {
                    return Ok(Box::new(stream) as BoxStream);
                }
            }
        })
    }
}

async fn start(kind: Kind, test: &str) -> (Server, Certificates) {
    let certificates = Certificates::new(&format!("tls-{test}-{kind:?}"));
    (Server::start_over_tls(kind, certificates.clone()).await, certificates)
}

/// Connects to the broker, and returns its reply to `PING`.
async fn ping(server: &Server, tls: &TlsConfig) -> std::io::Result<String> {
    let to = server.config().address();
    let env = process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop)).with_tls(to.clone(), tls).unwrap();
    let mut stream = env.network.connect(&to).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .expect("the broker replies or closes in time")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn instances_meet_over_tls(kind: Kind) {
    let (mut server, certificates) = start(kind, "meet").await;
    assert_eq!(ping(&server, &certificates.config()).await.unwrap(), "+PONG\r\n");
    let deployment = Deployment::new(&format!("tls-{kind:?}"), Some(server.config()));
    let master = deployment.start("master").await;
    let worker = deployment.start("worker").await;
    let typed = master.typing_begins("@before");
    worker.follower.reaches(typing::NAME, "master", typed).await;
    server.kill().await;
    server.start_again().await;
    let typed = master.typing_begins("@after");
    worker.follower.reaches(typing::NAME, "master", typed).await;
}

async fn a_broker_with_the_certificate_of_another_authority_is_refused(kind: Kind) {
    let (server, certificates) = start(kind, "other-authority").await;
    let config = TlsConfig { ca_file: Some(certificates.certificate("other-ca")), ..certificates.config() };
    let error = ping(&server, &config).await.unwrap_err().to_string();
    let address = server.config().address();
    assert!(error.starts_with(&format!("no TLS with {address}: ")) && error.contains("UnknownIssuer"), "{error}");
}

async fn a_client_without_a_certificate_is_refused(kind: Kind) {
    let (server, certificates) = start(kind, "no-certificate").await;
    let config = TlsConfig { ca_file: Some(certificates.certificate("ca")), ..TlsConfig::default() };
    assert!(ping(&server, &config).await.is_err());
    assert!(ping(&server, &certificates.config()).await.is_ok(), "a client with a certificate is still accepted");
    let ca = certificates.certificate("ca");
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let (status, error) = follow_in_vain(&url, "2s", &["--ca-file", ca.to_str().unwrap()]).await;
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("CertificateRequired"), "{error}");
}

async fn follow_listens_over_tls(kind: Kind) {
    let (server, certificates) = start(kind, "follow").await;
    let file = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (ca, certificate) = (file(certificates.certificate("ca")), file(certificates.certificate("squall")));
    let key = file(certificates.key("squall"));
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let tls = ["--ca-file", &ca, "--certificate-file", &certificate, "--private-key-file", &key];
    let mut program = Program::follow(&url, &[&tls[..], &["--json"]].concat());
    program.next_object("listening").await;
}

/// Returns the status and the errors of a follower that hears nothing.
async fn follow_in_vain(url: &str, duration: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let follow = ["follow", "--redis", url, "--server-name", "squall.test", "--for", duration];
    let output = command(&[&follow, arguments].concat()).output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

async fn a_port_for_tls_that_is_addressed_without_is_named(kind: Kind) {
    let (server, _certificates) = start(kind, "addressed-without").await;
    let (status, error) = follow_in_vain(&format!("redis://127.0.0.1:{}", server.port), "2s", &[]).await;
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("connect with TLS, by rediss://"), "{error}");
}

async fn a_port_without_tls_that_is_addressed_with_it_is_named(kind: Kind) {
    let server = Server::start(kind, None).await;
    let certificates = Certificates::new(&format!("tls-addressed-with-{kind:?}"));
    let ca = certificates.certificate("ca");
    let url = format!("rediss://127.0.0.1:{}", server.port);
    // A broker that waits for the rest of a line is given up after 10 s.
    let (status, error) = follow_in_vain(&url, "12s", &["--ca-file", ca.to_str().unwrap()]).await;
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("name the port that is, or connect without TLS"), "{error}");
}

/// An observer that keeps the errors of connections.
#[derive(Default)]
struct Errors(RefCell<Vec<String>>);

impl TaskObserver for Errors {}

impl Observer for Errors {
    fn event(&self, event: InstanceEvent<'_>) {
        if let InstanceEvent::Connection { error, .. } = event {
            self.0.borrow_mut().push(error.to_string());
        }
    }
}

/// Starts a master with this broker, and waits until it reports two errors of its connections.
pub(crate) async fn errors_of_master(test: &str, broker: RedisConfig) -> Vec<String> {
    let deployment = Deployment::new(test, Some(broker));
    let errors = Rc::<Errors>::default();
    let master = deployment.start_observed("master", errors.clone()).await;
    let reported = async {
        while errors.0.borrow().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reported).await.expect("it reports that it cannot connect");
    drop(master);
    errors.0.take()
}

async fn a_broker_with_tls_that_is_addressed_without_it_is_named(kind: Kind) {
    let (server, _certificates) = start(kind, "plain-client").await;
    let plain = RedisConfig { tls: None, ..server.config() };
    for error in errors_of_master(&format!("tls-plain-client-{kind:?}"), plain).await {
        assert!(error.contains("TLS"), "{error}");
    }
}

async fn a_broker_without_tls_that_is_addressed_with_it_is_named(kind: Kind) {
    let server = Server::start(kind, None).await;
    let certificates = Certificates::new(&format!("tls-plain-broker-{kind:?}"));
    let with_tls = RedisConfig { tls: Some(certificates.config()), ..server.config() };
    for error in errors_of_master(&format!("tls-plain-broker-{kind:?}-site"), with_tls).await {
        assert!(error.contains("The port does not seem to be for TLS"), "{error}");
    }
}
