//! A broker to connect to.

use std::net::TcpListener;
use std::time::Duration;

use squall::env::Network;
use squall::env::network::TokioNetwork;
use squall::instance::config::RedisConfig;
use squall::sim::broker::{self, Limits};
use tokio::task::JoinHandle;

use crate::deployment::{PATIENCE, free_port};
use crate::tls::Certificates;

/// How much may wait for a subscriber of the brokers of these tests.
pub const HARD_BYTES: usize = 1 << 20;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The storm's own.
    Simulated,
    /// A `redis-server`.
    #[cfg(feature = "services")]
    Real,
}

/// A broker on a port of this machine, which is gone when this is dropped.
pub struct Server {
    pub port: u16,
    kind: Kind,
    password: Option<&'static str>,
    tls: Option<Certificates>,
    running: Option<Running>,
}

enum Running {
    Simulated(JoinHandle<()>),
    #[cfg(feature = "services")]
    Real(std::process::Child),
}

impl Server {
    /// Starts a broker on a free port.
    pub async fn start(kind: Kind, password: Option<&'static str>) -> Self {
        Self::start_on_free_port(kind, password, None).await
    }

    /// Starts a broker on a free port that speaks TLS, and asks who speaks to it.
    pub async fn start_over_tls(kind: Kind, certificates: Certificates) -> Self {
        Self::start_on_free_port(kind, None, Some(certificates)).await
    }

    async fn start_on_free_port(kind: Kind, password: Option<&'static str>, tls: Option<Certificates>) -> Self {
        let port = TcpListener::local_addr(&free_port()).unwrap().port();
        let mut server = Server { port, kind, password, tls, running: None };
        server.start_again().await;
        server
    }

    /// Starts it on the same port, after it was killed.
    pub async fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.running = Some(match self.kind {
            Kind::Simulated => {
                let limits = Limits { hard_bytes: HARD_BYTES, ..Limits::default() };
                let options =
                    broker::Options { password: self.password.map(str::to_owned), limits, ..Default::default() };
                let listener = TokioNetwork.listen(self.port).await.unwrap();
                let listener = match &self.tls {
                    Some(certificates) => certificates.accept_on(listener),
                    None => listener,
                };
                Running::Simulated(tokio::task::spawn_local(broker::serve(listener, options)))
            }
            #[cfg(feature = "services")]
            Kind::Real => {
                let port = self.port.to_string();
                let limit = format!("pubsub {HARD_BYTES} 0 0");
                let mut command = std::process::Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                match &self.tls {
                    Some(tls) => {
                        command.args(["--port", "0", "--tls-port", &port]);
                        command.arg("--tls-ca-cert-file").arg(tls.certificate("ca"));
                        command.arg("--tls-cert-file").arg(tls.certificate("broker"));
                        command.arg("--tls-key-file").arg(tls.key("broker"));
                    }
                    None => _ = command.args(["--port", &port]),
                }
                command.args(["--client-output-buffer-limit", &limit]);
                if let Some(password) = self.password {
                    command.args(["--requirepass", password]);
                }
                let child = command.stdout(std::process::Stdio::null()).spawn();
                let child = child.expect("redis-server has to be installed: it is in Debian's package redis-server");
                Running::Real(child)
            }
        });
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the broker comes up");
    }

    /// Ends it at once, with all its connections.
    pub async fn kill(&mut self) {
        match self.running.take().expect("it runs") {
            Running::Simulated(task) => {
                task.abort();
                let _ = task.await;
            }
            #[cfg(feature = "services")]
            Running::Real(mut child) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }

    /// Has a real one do nothing any more, and keep its connections.
    #[cfg(feature = "services")]
    pub fn fall_silent(&self) {
        match &self.running {
            Some(Running::Real(child)) => crate::program::send_signal(child, "STOP"),
            _ => panic!("there is no process that could be stopped"),
        }
    }

    /// How instances find it.
    pub fn config(&self) -> RedisConfig {
        let (password, tls) = (self.password.map(str::to_owned), self.tls.as_ref().map(Certificates::config));
        RedisConfig { host: "127.0.0.1".into(), port: self.port, password, tls }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match self.running.take() {
            #[cfg(feature = "services")]
            Some(Running::Real(mut child)) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Some(Running::Simulated(task)) => task.abort(),
            None => {}
        }
    }
}

/// The same tests, on the storm's own broker and, with the feature `services`, on a real one.
macro_rules! on_both {
    ($($(#[$attribute:meta])* $test:ident;)*) => {
        mod simulated {
            $(#[test] fn $test() { crate::run(super::$test(crate::server::Kind::Simulated)); })*
        }
        #[cfg(feature = "services")]
        mod real {
            $(#[test] fn $test() { crate::run(super::$test(crate::server::Kind::Real)); })*
        }
    };
}
pub(crate) use on_both;
