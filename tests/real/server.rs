//! A broker to connect to.

use std::net::TcpListener;
use std::time::Duration;

use squall::sim::broker::{self, Limits};
use squall::transport::RedisConfig;
use squall_env::Network;
use squall_env::network::TokioNetwork;
use tokio::task::JoinHandle;

use crate::deployment::PATIENCE;
use crate::ports::free_port;
use crate::tls::Certificates;

/// The output-buffer limit for a subscriber of these brokers.
pub(crate) const HARD_BYTES: usize = 1 << 20;

/// The program that serves as the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The simulated broker, in this process.
    Simulated,
    /// A `redis-server`.
    #[cfg(feature = "services")]
    Real,
}

/// A broker on a port of this machine. Dropping it ends the broker.
pub(crate) struct Server {
    pub port: u16,
    kind: Kind,
    password: Option<&'static str>,
    tls: Option<Certificates>,
    /// The options of a simulated broker. They are the same after a restart: no two clients have one address.
    options: broker::Options,
    running: Option<Running>,
}

enum Running {
    Simulated(JoinHandle<()>),
    #[cfg(feature = "services")]
    Real(std::process::Child),
}

impl Server {
    /// Starts a broker on a free port.
    pub(crate) async fn start(kind: Kind, password: Option<&'static str>) -> Self {
        Self::start_on_free_port(kind, password, None).await
    }

    /// Starts a broker with TLS on a free port, which requires client certificates.
    pub(crate) async fn start_over_tls(kind: Kind, certificates: Certificates) -> Self {
        Self::start_on_free_port(kind, None, Some(certificates)).await
    }

    async fn start_on_free_port(kind: Kind, password: Option<&'static str>, tls: Option<Certificates>) -> Self {
        let port = TcpListener::local_addr(&free_port()).unwrap().port();
        let limits = Limits { hard_bytes: HARD_BYTES, ..Limits::default() };
        let options = broker::Options { password: password.map(str::to_owned), limits, ..Default::default() };
        let mut server = Server { port, kind, password, tls, options, running: None };
        server.start_again().await;
        server
    }

    /// Starts the broker again on the same port, after it was killed.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "the broker already runs");
        self.running = Some(match self.kind {
            Kind::Simulated => {
                let listener = TokioNetwork.listen(self.port).await.unwrap();
                let listener = match &self.tls {
                    Some(certificates) => certificates.accept_on(listener),
                    None => listener,
                };
                Running::Simulated(tokio::task::spawn_local(broker::serve(listener, self.options.clone())))
            }
            #[cfg(feature = "services")]
            Kind::Real => {
                let port = self.port.to_string();
                let limit = format!("pubsub {HARD_BYTES} 0 0");
                let mut command = std::process::Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                // A replica would leave the file by which it was synchronised in the current folder.
                command.args(["--rdb-del-sync-files", "yes"]);
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
        tokio::time::timeout(PATIENCE, up).await.expect("the broker accepts connections in time");
    }

    /// Kills the broker, and closes all its connections.
    pub(crate) async fn kill(&mut self) {
        match self.running.take().expect("the broker runs") {
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

    /// Suspends the process of a real broker. Its connections stay open.
    #[cfg(feature = "services")]
    pub(crate) fn fall_silent(&self) {
        match &self.running {
            Some(Running::Real(child)) => crate::program::send_signal(child, "STOP"),
            _ => panic!("only a running redis-server can be suspended"),
        }
    }

    /// Returns the configuration of instances that use this broker.
    pub(crate) fn config(&self) -> RedisConfig {
        self.config_at(self.port)
    }

    /// Returns the configuration of instances that reach this broker through `port`.
    pub(crate) fn config_at(&self, port: u16) -> RedisConfig {
        let (password, tls) = (self.password.map(str::to_owned), self.tls.as_ref().map(Certificates::config));
        RedisConfig { password, tls, ..RedisConfig::at("127.0.0.1", port) }
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

/// Declares tests that run on the simulated broker and, with the feature `services`, on a real one.
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
