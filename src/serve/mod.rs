//! One instance as a process of its own: over real sockets, on a SQLite file, with its metrics and its health beside it.

mod file;
mod log;

use std::cell::RefCell;
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

use crate::env::{Both, Env, Log, Scope, Silent, TlsError};
use crate::instance::{Instance, StartError};
use crate::metrics::{self, Metrics};
use crate::protocol::InstanceName;
use crate::replication::{Consumers, Side};
use crate::store::{Database, DatabaseError, SqliteBackend};

/// Why an instance is not served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name is taken.
    #[error("{instance} is running already: another process holds {}. Stop that one first", lock.display())]
    Running {
        /// Whose name it is.
        instance: InstanceName,
        /// What it holds.
        lock: PathBuf,
    },
    /// There can be no file beside the database.
    #[error("cannot lock {}: {error}. The folder of the database has to be there, and be writable", lock.display())]
    Lock {
        /// What was to be locked.
        lock: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The database cannot be used.
    #[error("cannot open the database {}: {}. It has to be a writable SQLite file, or none yet", path.display(),
        reasons(error))]
    Database {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: DatabaseError,
    },
    /// Nobody can ask for the metrics.
    #[error("cannot serve metrics at {address}: {error}. Give another address, or stop whoever has this one")]
    Metrics {
        /// Where they were to be served.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The broker cannot be spoken to over TLS.
    #[error("{}: [redis.tls]: {error}", file.display())]
    Tls {
        /// Which file says how.
        file: PathBuf,
        /// Why not.
        error: TlsError,
    },
    /// A port of the instance cannot be opened.
    #[error("cannot listen on port {port}: {error}. Stop whoever has it, or give {instance} another one in {}",
        file.display())]
    Port {
        /// The port.
        port: u16,
        /// Why not.
        error: io::Error,
        /// Whose port it is.
        instance: InstanceName,
        /// Which file says so.
        file: PathBuf,
    },
    /// The instance did not start.
    #[error("{instance} cannot start: {}", reasons(error))]
    Start {
        /// The instance.
        instance: InstanceName,
        /// Why not.
        error: StartError,
    },
}

/// How far the instance has come.
enum State {
    Starting,
    Running(Rc<Instance>),
    Stopping,
}

/// Runs the instance called `name` until `stop` is done, and then stops it gracefully. Must be called on a `LocalSet` of
/// its own. Metrics are served at `metrics` or, without one, where the file says, if it does.
///
/// # Errors
/// It did not start.
pub async fn serve(
    file: &File,
    name: &InstanceName,
    metrics: Option<SocketAddr>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    file.check_instance(name)?;
    let _lock = lock(&file.database, name)?;
    let registry = Registry::new();
    let counters = Rc::new(Metrics::new(&registry).expect("the registry is empty"));
    let state = Rc::new(RefCell::new(State::Starting));
    // Not the instance's: whoever asks while it starts or stops is told so.
    let tasks = Scope::new(Rc::new(Silent));
    if let Some(address) = metrics.or_else(|| file.metrics_of(name)) {
        let failed = |error| ServeError::Metrics { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        tracing::info!(address = %listener.local_addr().map_err(failed)?, "serving metrics and health");
        let asked = Rc::clone(&state);
        let health = Rc::new(move || health(&asked.borrow()));
        tasks.spawn("serve_metrics", metrics::serve(Box::new(listener), registry, health, tasks.clone()));
    }

    let backend = SqliteBackend::open(&file.database)
        .map_err(|error| ServeError::Database { path: file.database.clone(), error })?;
    let consumers = Consumers::default();
    consumers.register(counters.clone());
    consumers.register(Rc::new(log::Rows));
    let env = Env::of_process(file.bind, Rc::new(Both(Rc::new(Log), counters)));
    let env = file.config.with_tls(env).map_err(|error| ServeError::Tls { file: file.path.clone(), error })?;
    let database = Database::new(Rc::new(backend));
    let mut stop = pin!(stop);
    let instance = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        started = Instance::start(name.clone(), Rc::clone(&file.config), env, database, consumers) => {
            started.map_err(|error| did_not_start(file, name, error))?
        }
    };
    *state.borrow_mut() = State::Running(Rc::clone(&instance));
    let over = if file.config.redis.is_some() { "Redis" } else { "TCP" };
    tracing::info!(instance = %name, over, database = %file.database.display(), "started");
    stop.await;
    *state.borrow_mut() = State::Stopping;
    tracing::info!(instance = %name, "stopping");
    instance.stop().await;
    tracing::info!(instance = %name, "stopped");
    Ok(())
}

/// Holds the name, for as long as what it returns is not dropped and this process lives. A second process of a name would
/// end the first one's session with the database before it finds its ports taken.
fn lock(database: &Path, name: &InstanceName) -> Result<std::fs::File, ServeError> {
    let mut lock = database.to_owned().into_os_string();
    lock.push(format!("-{}.lock", utf8_percent_encode(name.as_str(), NON_ALPHANUMERIC)));
    let lock = PathBuf::from(lock);
    let file = match std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock) {
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

/// An instance is well when it has started and, if there is a broker, hears through it what it says there itself.
fn health(state: &State) -> Result<(), String> {
    let instance = match state {
        State::Starting => return Err("starting".to_owned()),
        State::Stopping => return Err("stopping".to_owned()),
        State::Running(instance) => instance,
    };
    let Some(broker) = &instance.config().redis else { return Ok(()) };
    let links = instance.handler().links();
    let link = |side| links.iter().find(|link| link.side() == side);
    let broker = broker.address();
    if link(Side::Publisher).is_none() {
        return Err(format!("no connection to publish on with the broker at {broker}"));
    }
    match link(Side::Subscriber) {
        None => Err(format!("not subscribed with the broker at {broker}")),
        Some(subscription) if !subscription.is_working() => {
            Err(format!("subscribed with the broker at {broker}, but nothing has come back yet"))
        }
        Some(_) => Ok(()),
    }
}

/// An error with everything that it came from.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        let said = reason.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = reason.source();
    }
    text
}
