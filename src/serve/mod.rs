//! Runs one instance as a process: on real sockets and a SQLite file, with metrics and a health check.

mod database;
mod descriptors;
mod file;
mod health;
mod log;
mod slow_writes;

use std::fs::TryLockError;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prometheus::Registry;
use thiserror::Error;
use tokio::net::TcpListener;

pub use file::{File, FileError};
use health::State;
use slow_writes::SlowWrites;

use descriptors::Shares;
pub use descriptors::{DESCRIPTORS_MIN, DESCRIPTORS_RESERVED, TooFewDescriptors};

use crate::errors::Causes;
use crate::instance::{Config, Instance, StartError};
use crate::metrics::{self, Metrics, ReadCount};
use crate::observer::{Log, Tee, process_env};
use crate::private_file;
use crate::replication::Consumers;
use crate::store::{Database, DatabaseError, SqliteBackend};
use crate::tasks;
use squall_env::{Noop, TaskSpawner, TlsError};
use squall_protocol::InstanceName;

/// An error that keeps an instance from starting.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// Another process runs this instance.
    #[error("{instance} is already running: another process holds {}. Stop that process first", lock.display())]
    Running {
        /// The instance.
        instance: InstanceName,
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock file, which is next to the database, cannot be created or locked.
    #[error("cannot lock {}: {error}. The folder of the database must exist and be writable", lock.display())]
    Lock {
        /// The lock file.
        lock: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The database cannot be used.
    #[error("cannot open the database {}: {}. It must be a writable SQLite file, or not exist yet", path.display(),
        Causes(error))]
    Database {
        /// The database file.
        path: PathBuf,
        /// The error.
        error: DatabaseError,
    },
    /// The port of the metrics cannot be opened.
    #[error(
        "cannot serve metrics at {address}: {error}. Choose another address, or stop the program that uses this one"
    )]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// The error.
        error: io::Error,
    },
    /// The TLS settings of the broker cannot be used.
    #[error("{}: [redis.tls]: {error}", file.display())]
    Tls {
        /// The configuration file.
        file: PathBuf,
        /// The error.
        error: TlsError,
    },
    /// A port of the instance cannot be opened.
    #[error("cannot listen on port {port}: {error}. Stop the program that uses it, or give {instance} another port in {}",
        file.display())]
    Port {
        /// The port.
        port: u16,
        /// The error.
        error: io::Error,
        /// The instance that listens there.
        instance: InstanceName,
        /// The configuration file.
        file: PathBuf,
    },
    /// The instance failed to start.
    #[error("{instance} cannot start: {}", Causes(error))]
    Start {
        /// The instance.
        instance: InstanceName,
        /// The error.
        error: StartError,
    },
}

/// Runs the instance called `name` until `stop` completes, and then stops it gracefully. Must be called on a `LocalSet` of
/// its own. Metrics are served at `metrics`, or else at the address in the file, if there is one. `log_lines_dropped` returns the
/// number of lines of the log that were not written.
///
/// # Errors
/// The instance failed to start.
pub async fn serve(
    file: &File,
    name: &InstanceName,
    metrics: Option<SocketAddr>,
    log_lines_dropped: ReadCount,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    file.check_instance(name)?;
    if file.is_readable_by_all() {
        let path = file.path.display();
        tracing::warn!(%path, "every user of this machine can read the configuration, which has secrets: chmod 600");
    }
    let shares = Shares::of_process()?;
    let _lock = lock(&file.database, name)?;
    let registry = Registry::new();
    let counters = Rc::new(Metrics::new(&registry).expect("the registry is empty"));
    metrics::count_log_lines_dropped(&registry, log_lines_dropped).expect("the registry has no such counter");
    let state = Rc::<State>::default();
    // Not the tasks of the instance: the health check also answers while the instance starts and stops.
    let tasks = TaskSpawner::new(Rc::new(Noop));
    if let Some(address) = metrics.or_else(|| file.metrics_of(name)) {
        let failed = |error| ServeError::Metrics { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        tracing::info!(address = %listener.local_addr().map_err(failed)?, "serving metrics and health");
        let health_state = Rc::clone(&state);
        let health = Rc::new(move || health_state.health());
        let serving = metrics::serve(Box::new(listener), shares.metrics, registry, health, tasks.clone());
        tasks.spawn(tasks::SERVE_METRICS, serving);
    }

    let mut stop = pin!(stop);
    let backend = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        opened = SqliteBackend::opening(file.database.clone()) => {
            opened.map_err(|error| ServeError::Database { path: file.database.clone(), error })?
        }
    };
    state.opened(backend.unwritable());
    let consumers = Consumers::default();
    consumers.register(counters.clone());
    consumers.register(Rc::new(log::Rows));
    let slow_writes = Rc::<SlowWrites>::default();
    tasks.spawn(tasks::WATCH_SLOW_WRITES, Rc::clone(&slow_writes).watch());
    let observers = Rc::new(Tee(Rc::<Log>::default(), Rc::new(Tee(counters, slow_writes))));
    tasks.spawn(tasks::WATCH_DATABASE, database::watch(backend.unwritable(), observers.clone()));
    let env = process_env(file.bind, observers);
    let config = Rc::new(Config { limits: shares.within(file.config.limits), ..Config::clone(&file.config) });
    let env = config.with_tls(env).map_err(|error| ServeError::Tls { file: file.path.clone(), error })?;
    let database = Database::new(Rc::new(backend));
    let instance = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        started = Instance::start(name.clone(), config, env, database, consumers) => {
            started.map_err(|error| did_not_start(file, name, error))?
        }
    };
    state.started(&instance);
    let over = if file.config.redis.is_some() { "Redis" } else { "TCP" };
    tracing::info!(instance = %name, over, database = %file.database.display(), "started");
    stop.await;
    state.stopping();
    tracing::info!(instance = %name, "stopping");
    instance.stop().await;
    tracing::info!(instance = %name, "stopped");
    Ok(())
}

/// Locks the instance's name until the returned file is dropped or the process ends. Without the lock, a second process of
/// the same name would end the first one's database session before it finds the ports in use.
fn lock(database: &Path, name: &InstanceName) -> Result<std::fs::File, ServeError> {
    let mut lock = database.to_owned().into_os_string();
    lock.push(format!("-{}.lock", utf8_percent_encode(name.as_str(), NON_ALPHANUMERIC)));
    let lock = PathBuf::from(lock);
    let file = match private_file::options().create(true).truncate(false).write(true).open(&lock) {
        Ok(file) => file,
        Err(error) => return Err(ServeError::Lock { lock, error }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServeError::Running { instance: name.clone(), lock }),
        Err(TryLockError::Error(error)) => Err(ServeError::Lock { lock, error }),
    }
}

fn did_not_start(file: &File, name: &InstanceName, error: StartError) -> ServeError {
    match error {
        StartError::Listen { port, error } => {
            ServeError::Port { port, error, instance: name.clone(), file: file.path.clone() }
        }
        StartError::Config(error) => FileError::Config { path: file.path.clone(), error }.into(),
        error => ServeError::Start { instance: name.clone(), error },
    }
}
