//! Synapse's own configuration: the parts that say who writes what, and where the broker is.
//!
//! Synapse reads several files one after the other, and a key of a later file replaces that of an earlier one. Each process
//! reads `homeserver.yaml` and perhaps a file of its own. All other keys are ignored.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use thiserror::Error;

use document::{Document, Node};
use squall_env::TlsConfig;
use squall_judge::audit::Writers;
use squall_protocol::{InstanceName, MASTER};

pub(super) use document::DocumentError;

/// The name of the main process in `instance_map`.
const MAIN: &str = "main";

/// The streams that the writers of a key of `stream_writers` write. A key that is not listed is the name of its stream.
const STREAMS: [(&str, &[&str]); 3] = [
    ("events", &["events", "backfill", "sticky_events"]),
    ("presence", &["presence", "presence_federation"]),
    ("quarantined_media_changes", &["quarantined_media"]),
];

/// Keys of `stream_writers` that every version since 1.135 has. A stream whose key is absent is written by the main process.
const WRITER_KEYS: [&str; 9] = [
    "account_data",
    "device_lists",
    "events",
    "presence",
    "push_rules",
    "receipts",
    "thread_subscriptions",
    "to_device",
    "typing",
];

/// Streams that only the main process writes, in every configuration.
///
/// `caches` is not among them, because every process writes it. The main process also writes `quarantined_media`, whichever
/// writers are configured (Synapse #20080).
const OF_MASTER: [&str; 5] =
    ["federation", "pushers", "quarantined_media", "un_partial_stated_event", "un_partial_stated_room"];

/// Keys of `stream_writers` of which the order of the writers matters to Synapse: an event belongs to the writer that the
/// hash of its room counts to, and the first writer of `device_lists` does what only one may do.
const ORDERED: [&str; 2] = ["device_lists", "events"];

/// The parts of Synapse's configuration that Squall needs.
#[derive(Debug, Default)]
pub(super) struct SynapseConfig {
    /// The name of the homeserver, if a file has it.
    pub server_name: Option<String>,
    /// The writers of each stream.
    pub writers: Writers,
    documents: Vec<Document>,
}

/// The `redis` section.
#[derive(Debug)]
pub(super) struct SynapseRedis {
    /// The host name, or the path of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The source of the password, if there is one.
    pub password: Option<SynapsePassword>,
    /// The files for TLS, if connections use TLS.
    pub tls: Option<TlsConfig>,
    /// The folder of certificate authorities, `ca_path`, which Squall does not read.
    pub ca_folder: Option<PathBuf>,
}

/// The password in the `redis` section.
pub(super) enum SynapsePassword {
    /// `password`.
    Text(String),
    /// `password_path`: a file with the password.
    File(PathBuf),
}

impl std::fmt::Debug for SynapsePassword {
    /// Writes everything but the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SynapsePassword::Text(_) => f.write_str("Text((secret))"),
            SynapsePassword::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// An error in the configuration of Synapse.
#[derive(Debug, Error)]
pub(super) enum SynapseConfigError {
    /// A file cannot be used.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Two files have different values of a key that all processes must agree on.
    #[error(
        "{} and {} have different {key}: all processes of a deployment must have the same",
        first.display(), second.display()
    )]
    Differ {
        /// The key.
        key: &'static str,
        /// The first file.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
    /// A writer of a stream is not an instance.
    #[error(
        "{}: {key} names {writer}, which is not in instance_map: correct the name, or give the file that has the \
         instance_map by another --synapse-config",
        path.display()
    )]
    UnknownWriter {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The name.
        writer: String,
    },
    /// The password is given twice.
    #[error("{}: redis has both password and password_path: keep one of them", .0.display())]
    TwoPasswords(PathBuf),
}

impl SynapseConfig {
    /// Reads the files, in the order in which Synapse is given them.
    pub(super) fn load(paths: &[PathBuf]) -> Result<Self, SynapseConfigError> {
        let mut documents = Vec::new();
        for path in paths {
            documents.push(Document::load(path)?);
        }
        Self::of(documents)
    }

    fn of(documents: Vec<Document>) -> Result<Self, SynapseConfigError> {
        let server_name = match shared(&documents, "server_name", Node::text)? {
            Some(node) => Some(node.text()?.to_owned()),
            None => None,
        };
        Ok(SynapseConfig { server_name, writers: writers(&documents)?, documents })
    }

    /// Returns the broker, if a file enables it.
    ///
    /// # Errors
    /// The section `redis` cannot be used. It is not looked at before.
    pub(super) fn redis(&self) -> Result<Option<SynapseRedis>, SynapseConfigError> {
        last(&self.documents, "redis").map_or(Ok(None), |node| redis(&node))
    }
}

/// Returns the value of a key in the last file that has it.
fn last<'a>(documents: &'a [Document], key: &str) -> Option<Node<'a>> {
    documents.iter().rev().find_map(|document| document.get(key))
}

/// Returns the value of a key that all files with it must agree on: its `meaning` must be the same.
fn shared<'a, M: PartialEq>(
    documents: &'a [Document],
    key: &'static str,
    meaning: impl Fn(&Node<'a>) -> Result<M, DocumentError>,
) -> Result<Option<Node<'a>>, SynapseConfigError> {
    let mut nodes = documents.iter().filter_map(|document| document.get(key));
    let Some(first) = nodes.next() else { return Ok(None) };
    for other in nodes {
        if meaning(&first)? != meaning(&other)? {
            let (first, second) = (first.path().to_owned(), other.path().to_owned());
            return Err(SynapseConfigError::Differ { key, first, second });
        }
    }
    Ok(Some(first))
}

/// Reads the `redis` section. Returns none if it is not enabled.
fn redis(node: &Node<'_>) -> Result<Option<SynapseRedis>, SynapseConfigError> {
    node.mapping()?;
    let is_true = |key: &str| node.get(key).map_or(Ok(false), |value| value.truth());
    if !is_true("enabled")? {
        return Ok(None);
    }
    let text = |key: &str| node.get(key).map(|value| value.text()).transpose();
    // A socket takes precedence over a host and a port, and has no TLS.
    let path = text("path")?;
    let host = match path {
        Some(path) => path,
        None => text("host")?.unwrap_or("localhost"),
    };
    let port = node.get("port").map_or(Ok(6379), |value| value.port())?;
    let password = match (text("password")?, text("password_path")?) {
        (Some(_), Some(_)) => return Err(SynapseConfigError::TwoPasswords(node.path().to_owned())),
        (Some(password), None) => Some(SynapsePassword::Text(password.to_owned())),
        (None, Some(path)) => Some(SynapsePassword::File(path.into())),
        (None, None) => None,
    };
    let mut redis = SynapseRedis { host: host.to_owned(), port, password, tls: None, ca_folder: None };
    if is_true("use_tls")? && path.is_none() {
        let file = |key: &str| text(key).map(|path| path.map(PathBuf::from));
        let (certificate_file, private_key_file) = (file("certificate_file")?, file("private_key_file")?);
        redis.tls = Some(TlsConfig { ca_file: file("ca_file")?, certificate_file, private_key_file });
        redis.ca_folder = file("ca_path")?;
    }
    Ok(Some(redis))
}

/// Returns the writers of each stream: those in `stream_writers`, or else the main process.
fn writers(documents: &[Document]) -> Result<Writers, SynapseConfigError> {
    let master = BTreeSet::from([InstanceName::from(MASTER)]);
    let mut writers = Writers::new();
    for key in WRITER_KEYS {
        for stream in streams_of(key) {
            writers.insert(stream.into(), master.clone());
        }
    }
    for stream in OF_MASTER {
        writers.insert(stream.into(), master.clone());
    }
    let Some(section) = shared(documents, "stream_writers", named_writers)? else { return Ok(writers) };
    let instances = instances(documents)?;
    for key in section.keys()? {
        let Some(node) = section.get(key) else { continue };
        let mut named = BTreeSet::new();
        for name in node.names()? {
            if !instances.contains(name) {
                let path = node.path().to_owned();
                let key = node.key().to_owned();
                return Err(SynapseConfigError::UnknownWriter { path, key, writer: name.to_owned() });
            }
            named.insert(InstanceName::from(name));
        }
        for stream in streams_of(key) {
            if OF_MASTER.contains(&stream) {
                named.insert(MASTER.into());
            }
            writers.insert(stream.into(), named.clone());
        }
    }
    Ok(writers)
}

/// Returns the writers that a section `stream_writers` names under each key, as far as Synapse tells them apart.
fn named_writers<'a>(section: &Node<'a>) -> Result<BTreeMap<&'a str, Vec<&'a str>>, DocumentError> {
    let mut named = BTreeMap::new();
    for key in section.keys()? {
        let Some(node) = section.get(key) else { continue };
        let mut names = node.names()?;
        if !ORDERED.contains(&key) {
            names.sort_unstable();
            names.dedup();
        }
        // That is the default.
        if names != [MASTER] {
            named.insert(key, names);
        }
    }
    Ok(named)
}

/// Returns the streams of a key of `stream_writers`.
fn streams_of(key: &str) -> Vec<&str> {
    match STREAMS.iter().find(|(of_key, _)| *of_key == key) {
        Some((_, streams)) => streams.to_vec(),
        None => vec![key],
    }
}

/// Returns the names of the instances: the main process, those in `instance_map`, and the workers whose files were given.
fn instances(documents: &[Document]) -> Result<BTreeSet<&str>, SynapseConfigError> {
    let mut instances = BTreeSet::from([MASTER]);
    for document in documents {
        if let Some(map) = document.get("instance_map") {
            instances.extend(map.keys()?.into_iter().filter(|name| *name != MAIN));
        }
        if let Some(name) = document.get("worker_name") {
            instances.insert(name.text()?);
        }
    }
    Ok(instances)
}

#[cfg(test)]
mod tests;
