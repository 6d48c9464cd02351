//! The configuration file: a deployment, and the local paths and ports of its instances.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use thiserror::Error;

use crate::instance::config::{self, StreamWriters};
use crate::instance::{Config, ConfigError};
use crate::limits::Limits;
use crate::presence::PresenceConfig;
use crate::private_file;
use crate::transport::{InstanceLocation, RedisConfig};
use squall_protocol::{InstanceName, MASTER};

/// A configuration file that has been read and checked. All instances of a deployment may share one.
#[derive(Debug)]
pub struct File {
    /// The path of the file.
    pub path: PathBuf,
    /// The deployment.
    pub config: Rc<Config>,
    /// The SQLite file that all instances share. A relative path in the configuration file starts at its folder.
    pub database: PathBuf,
    /// The address on which the instances listen.
    pub bind: IpAddr,
    /// The instances that write nothing, to which no instance connects.
    workers: BTreeSet<InstanceName>,
    /// The address of each instance's metrics and health check.
    metrics: BTreeMap<InstanceName, SocketAddr>,
}

/// An error in a configuration file.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}. Name a configuration file; docs/operators.md has an example", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The file is not TOML, or has an unknown setting.
    #[error("{}, line {line}: {message}", path.display())]
    Parse {
        /// The path of the file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's message, without any text of the file that may be a secret.
        message: String,
    },
    /// The deployment is invalid.
    #[error("{}: {error}", path.display())]
    Config {
        /// The path of the file.
        path: PathBuf,
        /// The error.
        error: ConfigError,
    },
    /// The file has a metrics address for an unknown instance.
    #[error("{}: [metrics] names {name}, which is not an instance: add it to workers, or use one of {known}",
        path.display())]
    UnknownMetricsInstance {
        /// The path of the file.
        path: PathBuf,
        /// The unknown instance.
        name: InstanceName,
        /// The instances in the file.
        known: String,
    },
    /// The requested instance is not in the file.
    #[error("{} has no instance {name}: add it to workers, or use one of {known}", path.display())]
    NoInstance {
        /// The path of the file.
        path: PathBuf,
        /// The unknown instance.
        name: InstanceName,
        /// The instances in the file.
        known: String,
    },
}

/// The TOML form of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    server_name: String,
    secret: String,
    database: PathBuf,
    #[serde(default = "loopback")]
    bind: IpAddr,
    #[serde(default)]
    workers: BTreeSet<InstanceName>,
    instance_map: BTreeMap<InstanceName, InstanceLocation>,
    #[serde(default)]
    stream_writers: StreamWriters,
    #[serde(default)]
    presence: PresenceConfig,
    #[serde(default)]
    redis: Option<RedisConfig>,
    #[serde(default)]
    metrics: BTreeMap<InstanceName, SocketAddr>,
    #[serde(default = "config::shared")]
    shares_database: bool,
}

/// Returns a parser's message without the value that it quotes: `invalid type: integer `5`, expected a string`.
fn without_value(message: &str) -> String {
    match (message.strip_prefix("invalid "), message.split_once(", expected ")) {
        (Some(_), Some((found, expected))) => {
            let kind: Vec<&str> = found.split(' ').take(3).filter(|word| !word.starts_with(['`', '"'])).collect();
            format!("{}, expected {expected}", kind.join(" "))
        }
        _ => message.to_owned(),
    }
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

impl File {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|error| FileError::Read { path: path.to_owned(), error })?;
        Self::parse(path, &text)
    }

    /// Parses `text`, the contents of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let path = path.to_owned();
        let written: FileToml = match toml::from_str(text) {
            Ok(written) => written,
            Err(error) => {
                let before = error.span().map_or("", |span| &text[..span.start]);
                let (line, message) = (1 + before.matches('\n').count(), without_value(error.message()));
                return Err(FileError::Parse { path, line, message });
            }
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let FileToml { server_name, secret, instance_map, stream_writers, presence, redis, shares_database, .. } =
            written;
        let redis = redis.map(|redis| RedisConfig { tls: redis.tls.map(|tls| tls.resolved_from(folder)), ..redis });
        let limits = Limits::default();
        let config =
            Config { server_name, secret, instance_map, stream_writers, presence, redis, shares_database, limits };
        let named = written.workers.iter().try_for_each(|name| config::check_name("instance", name.as_str()));
        if let Err(error) = config.validate().and(named) {
            return Err(FileError::Config { path, error });
        }
        let database = folder.join(written.database);
        let FileToml { bind, workers, metrics, .. } = written;
        let file = File { path, config: Rc::new(config), database, bind, workers, metrics };
        let instances = file.instances();
        match file.metrics.keys().find(|name| !instances.contains(*name)) {
            Some(name) => {
                let (path, name, known) = (file.path.clone(), name.clone(), file.known());
                Err(FileError::UnknownMetricsInstance { path, name, known })
            }
            None => Ok(file),
        }
    }

    /// Returns true if other users of this machine may read the file, which has the secrets of the deployment.
    pub fn is_readable_by_all(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| private_file::is_readable_by_all(&metadata))
    }

    /// Returns all instances of the deployment.
    pub fn instances(&self) -> BTreeSet<InstanceName> {
        let listeners = self.config.instance_map.keys().cloned();
        listeners.chain(self.workers.iter().cloned()).chain([MASTER.into()]).collect()
    }

    /// Returns the names of all instances, for messages.
    fn known(&self) -> String {
        self.instances().iter().map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Checks that the file has this instance.
    pub fn check_instance(&self, name: &InstanceName) -> Result<(), FileError> {
        if self.instances().contains(name) {
            return Ok(());
        }
        Err(FileError::NoInstance { path: self.path.clone(), name: name.clone(), known: self.known() })
    }

    /// Returns the address of the instance's metrics and health check, if it has one.
    pub fn metrics_of(&self, name: &InstanceName) -> Option<SocketAddr> {
        self.metrics.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "server_name = 'squall.test'\nsecret = 's'\ndatabase = 'squall.db'\n\
        [instance_map.master]\nhost = '127.0.0.1'\nreplication_port = 9092\nhttp_port = 9093\n";

    fn parse(text: &str) -> Result<File, String> {
        File::parse(Path::new("/etc/squall/squall.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn missing_settings_have_their_defaults() {
        let file = parse(MINIMAL).unwrap();
        assert_eq!(file.database, Path::new("/etc/squall/squall.db"));
        assert_eq!(file.bind, loopback());
        assert_eq!(file.config.stream_writers, StreamWriters::default());
        assert_eq!((&file.config.presence, &file.config.redis), (&PresenceConfig::default(), &None));
        assert_eq!(file.instances(), BTreeSet::from(["master".into()]));
        assert_eq!(file.metrics_of(&"master".into()), None);
    }

    #[test]
    fn the_example_in_the_docs_is_valid_as_it_stands_and_with_its_broker() {
        let document = include_str!("../../docs/operators.md");
        let text = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let file = parse(text).unwrap();
        assert_eq!(file.instances(), BTreeSet::from(["master", "worker1", "writer1"].map(InstanceName::from)));
        assert!(file.instances().iter().all(|name| file.metrics_of(name).is_some()));
        let (deployment, broker) = text.split_at(text.find("# [redis]").unwrap());
        let broker: String = broker.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap())).collect();
        let file = parse(&format!("{deployment}{broker}")).unwrap();
        let redis = file.config.redis.as_ref().unwrap();
        assert_eq!(redis.port, 6379);
        let tls = redis.tls.as_ref().unwrap();
        assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/etc/squall/ca.pem")), "as seen from the file's folder");
    }

    #[test]
    fn an_unknown_setting_is_refused_with_its_line() {
        for (more, line) in [
            ("[elsewhere]\n", "line 8"),
            ("paths = ['x']\n", "line 8"),
            ("[stream_writers]\nevnts = ['master']\n", "line 9"),
            ("[redis]\nhost = 'x'\nprot = 1\n", "line 10"),
        ] {
            let error = parse(&format!("{MINIMAL}{more}")).unwrap_err();
            assert!(error.starts_with(&format!("/etc/squall/squall.toml, {line}: unknown field")), "{error}");
        }
    }

    #[test]
    fn no_error_has_a_secret() {
        for (text, message) in [
            ("secret = hunter2\n".to_owned(), "line 1: string values must be quoted"),
            (format!("{MINIMAL}[redis]\npassword = 'hunter2\n"), "line 9: invalid literal string"),
            (
                format!("{MINIMAL}[redis]\nhost = 'x'\nport = 'hunter2'\n"),
                "line 10: invalid type: string, expected u16",
            ),
            (format!("{MINIMAL}[redis]\nhost = 'x'\npasword = 'hunter2'\n"), "line 10: unknown field `pasword`"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(message) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_invalid_deployment_is_refused() {
        let error = parse(&format!("{MINIMAL}[stream_writers]\nevents = ['writer1']\n")).unwrap_err();
        assert!(error.contains("writer1") && error.contains("add it to instance_map"), "{error}");
        let error = parse(&format!("workers = ['two words']\n{MINIMAL}")).unwrap_err();
        assert!(error.contains("\"two words\""), "{error}");
    }

    #[test]
    fn the_instances_are_the_listeners_and_the_workers() {
        let file = parse(&format!("workers = ['worker1']\n{MINIMAL}[metrics]\nworker1 = '127.0.0.1:9200'\n")).unwrap();
        assert_eq!(file.metrics_of(&"worker1".into()), Some(([127, 0, 0, 1], 9200).into()));
        assert!(file.check_instance(&"worker1".into()).is_ok());
        let error = file.check_instance(&"worker2".into()).unwrap_err().to_string();
        assert!(error.contains("no instance worker2") && error.contains("master, worker1"), "{error}");
        let error = parse(&format!("{MINIMAL}[metrics]\nworker1 = '127.0.0.1:9200'\n")).unwrap_err();
        assert!(error.contains("worker1, which is not an instance"), "{error}");
    }
}
