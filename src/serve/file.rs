//! The file that says what a deployment is and where one machine's instances keep what is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use thiserror::Error;

use crate::instance::config::{self, Endpoint, PresenceConfig, RedisConfig, StreamWriters};
use crate::instance::{Config, ConfigError};
use crate::protocol::{InstanceName, MASTER};

/// A configuration file that was read and checked. All instances of a deployment may share one.
#[derive(Debug)]
pub struct File {
    /// Where it was read from.
    pub path: PathBuf,
    /// The deployment.
    pub config: Rc<Config>,
    /// The SQLite file that all instances share. In the configuration file, as seen from the folder that it is in.
    pub database: PathBuf,
    /// The address at which ports are opened.
    pub bind: IpAddr,
    /// Instances that write nothing, so that nobody connects to them.
    workers: BTreeSet<InstanceName>,
    /// Where each instance serves its metrics and its health.
    metrics: BTreeMap<InstanceName, SocketAddr>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {error}. Name a configuration file; the README has one to begin with", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is not TOML, or says something that nobody knows.
    #[error("{}: {}", path.display(), error.to_string().trim_end())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and on which line.
        error: Box<toml::de::Error>,
    },
    /// It describes a deployment that cannot work.
    #[error("{}: {error}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ConfigError,
    },
    /// It has an address for the metrics of nobody.
    #[error("{}: there is no instance {name} whose metrics could be served: add it to workers, or take one of {known}",
        path.display())]
    MetricsOfNobody {
        /// The file.
        path: PathBuf,
        /// Who is not there.
        name: InstanceName,
        /// Who is.
        known: String,
    },
    /// There is no such instance.
    #[error("{} has no instance {name}: add it to workers, or take one of {known}", path.display())]
    NoInstance {
        /// The file.
        path: PathBuf,
        /// Who is not there.
        name: InstanceName,
        /// Who is.
        known: String,
    },
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    server_name: String,
    secret: String,
    database: PathBuf,
    #[serde(default = "loopback")]
    bind: IpAddr,
    #[serde(default)]
    workers: BTreeSet<InstanceName>,
    instance_map: BTreeMap<InstanceName, Endpoint>,
    #[serde(default)]
    stream_writers: StreamWriters,
    #[serde(default)]
    presence: PresenceConfig,
    #[serde(default)]
    redis: Option<RedisConfig>,
    #[serde(default)]
    metrics: BTreeMap<InstanceName, SocketAddr>,
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

    /// Understands `text`, which is that of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let path = path.to_owned();
        let written: Written = match toml::from_str(text) {
            Ok(written) => written,
            Err(error) => return Err(FileError::Parse { path, error: Box::new(error) }),
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let Written { server_name, secret, instance_map, stream_writers, presence, redis, .. } = written;
        let redis = redis.map(|redis| RedisConfig { tls: redis.tls.map(|tls| tls.seen_from(folder)), ..redis });
        let config = Config { server_name, secret, instance_map, stream_writers, presence, redis };
        let named = written.workers.iter().try_for_each(|name| config::check_name("instance", name.as_str()));
        if let Err(error) = config.validate().and(named) {
            return Err(FileError::Config { path, error });
        }
        let database = folder.join(written.database);
        let Written { bind, workers, metrics, .. } = written;
        let file = File { path, config: Rc::new(config), database, bind, workers, metrics };
        let instances = file.instances();
        match file.metrics.keys().find(|name| !instances.contains(*name)) {
            Some(name) => {
                let (path, name, known) = (file.path.clone(), name.clone(), file.known());
                Err(FileError::MetricsOfNobody { path, name, known })
            }
            None => Ok(file),
        }
    }

    /// Everybody in the deployment.
    pub fn instances(&self) -> BTreeSet<InstanceName> {
        let listeners = self.config.instance_map.keys().cloned();
        listeners.chain(self.workers.iter().cloned()).chain([MASTER.into()]).collect()
    }

    fn known(&self) -> String {
        self.instances().iter().map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Checks that there is such an instance.
    pub fn check_instance(&self, name: &InstanceName) -> Result<(), FileError> {
        if self.instances().contains(name) {
            return Ok(());
        }
        Err(FileError::NoInstance { path: self.path.clone(), name: name.clone(), known: self.known() })
    }

    /// Where the instance serves its metrics and its health, if it does.
    pub fn metrics_of(&self, name: &InstanceName) -> Option<SocketAddr> {
        self.metrics.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "server_name = 'squall.test'\nsecret = 's'\ndatabase = 'squall.db'\n\
        [instance_map.master]\nhost = '127.0.0.1'\nreplication_port = 9092\nhttp_port = 9093\n";

    fn parse(text: &str) -> Result<File, String> {
        File::parse(Path::new("/etc/squall/squall.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_is_as_everywhere_else() {
        let file = parse(LEAST).unwrap();
        assert_eq!(file.database, Path::new("/etc/squall/squall.db"));
        assert_eq!(file.bind, loopback());
        assert_eq!(file.config.stream_writers, StreamWriters::default());
        assert_eq!((&file.config.presence, &file.config.redis), (&PresenceConfig::default(), &None));
        assert_eq!(file.instances(), BTreeSet::from(["master".into()]));
        assert_eq!(file.metrics_of(&"master".into()), None);
    }

    #[test]
    fn the_readmes_file_can_be_used_as_it_stands_and_with_its_broker() {
        let readme = include_str!("../../README.md");
        let text = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
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
    fn what_nobody_knows_is_refused_with_its_line_wherever_it_stands() {
        for (more, line) in [
            ("[elsewhere]\n", "line 8"),
            ("paths = ['x']\n", "line 8"),
            ("[stream_writers]\nevnts = ['master']\n", "line 9"),
            ("[redis]\nhost = 'x'\nprot = 1\n", "line 10"),
        ] {
            let error = parse(&format!("{LEAST}{more}")).unwrap_err();
            assert!(error.starts_with("/etc/squall/squall.toml: "), "{error}");
            assert!(error.contains(line) && error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn a_deployment_that_cannot_work_is_refused() {
        let error = parse(&format!("{LEAST}[stream_writers]\nevents = ['writer1']\n")).unwrap_err();
        assert!(error.contains("writer1") && error.contains("add it to instance_map"), "{error}");
        let error = parse(&format!("workers = ['two words']\n{LEAST}")).unwrap_err();
        assert!(error.contains("\"two words\""), "{error}");
    }

    #[test]
    fn instances_are_those_that_are_named() {
        let file = parse(&format!("workers = ['worker1']\n{LEAST}[metrics]\nworker1 = '127.0.0.1:9200'\n")).unwrap();
        assert_eq!(file.metrics_of(&"worker1".into()), Some(([127, 0, 0, 1], 9200).into()));
        assert!(file.check_instance(&"worker1".into()).is_ok());
        let error = file.check_instance(&"worker2".into()).unwrap_err().to_string();
        assert!(error.contains("no instance worker2") && error.contains("master, worker1"), "{error}");
        let error = parse(&format!("{LEAST}[metrics]\nworker1 = '127.0.0.1:9200'\n")).unwrap_err();
        assert!(error.contains("no instance worker1"), "{error}");
    }
}
