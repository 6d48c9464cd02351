//! The broker to follow: its address and its credentials, from options or from Synapse's configuration.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use redis::{ConnectionAddr, IntoConnectionInfo};
use thiserror::Error;

use super::password::{self, PasswordError, Source};
use crate::cli::synapse_config::{SynapseConfig, SynapseConfigError, SynapsePassword, SynapseRedis};
use crate::observer::Env;
use crate::transport::RedisConfig;
use squall_env::{TlsConfig, TlsError};

/// The forms of an address.
const FORMS: &str = "write redis://HOST:PORT, rediss:// for TLS, or unix:///PATH for a socket, with USER@ before the host \
    if the broker has several users";

/// The options that name the broker.
#[derive(Debug, Args)]
pub(super) struct BrokerArguments {
    /// The broker: redis://HOST, redis://:PASSWORD@HOST:PORT or redis://USER:PASSWORD@HOST:PORT; rediss:// for TLS;
    /// unix:///PATH for a socket. Better keep the password out of it: other users of this machine can see arguments.
    // Not parsed by clap, whose errors would print the password.
    #[arg(long = "redis", value_name = "URL", required_unless_present = "synapse_config")]
    redis: Option<Url>,
    /// Read the broker's password from this file. The environment variable SQUALL_REDIS_PASSWORD is another place for it.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file instead of those of this machine. Only with TLS, like the next
    /// two.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Present the certificate in this PEM file to the broker.
    #[arg(long, value_name = "FILE", requires = "private_key_file")]
    certificate_file: Option<PathBuf>,
    /// The private key of that certificate.
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    private_key_file: Option<PathBuf>,
}

/// The address of `--redis`, which may have a password in it.
#[derive(Clone)]
struct Url(String);

impl From<String> for Url {
    fn from(url: String) -> Self {
        Url(url)
    }
}

impl fmt::Debug for Url {
    /// Writes nothing of it, because the password cannot be told from the rest before the address is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url((secret))")
    }
}

/// An error about the options that name the broker. None has the password.
#[derive(Debug, Error)]
pub(in crate::cli) enum BrokerArgumentError {
    /// The address is not that of a broker.
    #[error("--redis is not the address of a broker: {FORMS}")]
    NotAnAddress,
    /// The address has no host.
    #[error("the address of --redis has no host: {FORMS}")]
    NoHost,
    /// A socket cannot use TLS.
    #[error("the address of --redis is a socket, which has no TLS: {FORMS}")]
    TlsOnSocket,
    /// A file for TLS was given, but TLS is not used.
    #[error(
        "{} is a file for TLS, but the broker is addressed without TLS: name it by --redis rediss://HOST:PORT, or leave the \
         file out",
        .0.display()
    )]
    NoTls(PathBuf),
    /// The certificate authorities are in a folder.
    #[error(
        "redis.ca_path of --synapse-config is a folder of certificate authorities, {}, and Squall reads only a file: name \
         one with the broker's authority by --ca-file",
        .0.display()
    )]
    CaFolder(PathBuf),
    /// The address has a user, who cannot log in without a password.
    #[error(
        "the address of --redis has a user and no password: give the password by --password-file or {}, or leave the user \
         out. For a user of Redis without a password, give any",
        password::VARIABLE
    )]
    NoPassword,
    /// The broker in Synapse's configuration cannot be used.
    #[error(transparent)]
    Synapse(#[from] SynapseConfigError),
    /// Synapse's configuration has no broker.
    #[error(
        "the files of --synapse-config enable no broker (redis.enabled): add the file that does, or name it by --redis"
    )]
    NotInSynapse,
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

impl BrokerArguments {
    /// Returns the broker that the options name, or else the one in Synapse's configuration.
    pub(super) fn broker(&self, synapse: Option<&SynapseConfig>) -> Result<RedisConfig, BrokerArgumentError> {
        // Not looked at beside an address.
        let synapse = synapse.filter(|_| self.redis.is_none()).map(SynapseConfig::redis).transpose()?;
        self.broker_with(synapse.flatten(), Source::from_environment())
    }

    fn broker_with(
        &self,
        synapse: Option<SynapseRedis>,
        environment: Option<Source>,
    ) -> Result<RedisConfig, BrokerArgumentError> {
        let mut places = Vec::new();
        let mut ca_folder = None;
        let mut broker = match (&self.redis, synapse) {
            (Some(Url(url)), _) => parse(url)?,
            (None, Some(SynapseRedis { host, port, password, tls, ca_folder: folder })) => {
                places.extend(password.map(|password| match password {
                    SynapsePassword::Text(password) => Source::Synapse(password),
                    SynapsePassword::File(path) => Source::SynapseFile(path),
                }));
                ca_folder = folder;
                RedisConfig { tls, ..RedisConfig::at(host, port) }
            }
            (None, None) => return Err(BrokerArgumentError::NotInSynapse),
        };
        places.extend(broker.password.take().map(Source::Address));
        places.extend(self.password_file.clone().map(Source::File));
        places.extend(environment);
        broker.password = password::only(places)?;
        if broker.user.is_some() && broker.password.is_none() {
            return Err(BrokerArgumentError::NoPassword);
        }
        let BrokerArguments { ca_file, certificate_file, private_key_file, .. } = self;
        match &mut broker.tls {
            Some(tls) => {
                tls.ca_file = ca_file.clone().or(tls.ca_file.take());
                if let (None, Some(folder)) = (&tls.ca_file, ca_folder) {
                    return Err(BrokerArgumentError::CaFolder(folder));
                }
                if certificate_file.is_some() {
                    tls.certificate_file.clone_from(certificate_file);
                    tls.private_key_file.clone_from(private_key_file);
                }
            }
            None => {
                if let Some(file) = ca_file.as_ref().or(certificate_file.as_ref()) {
                    return Err(BrokerArgumentError::NoTls(file.clone()));
                }
            }
        }
        Ok(broker)
    }
}

/// Parses the address of `--redis`. It may have a password.
fn parse(url: &str) -> Result<RedisConfig, BrokerArgumentError> {
    let (plain, tls) = match url.strip_prefix("rediss:") {
        Some(rest) => (format!("redis:{rest}"), Some(TlsConfig::default())),
        None => (url.to_owned(), None),
    };
    let info = plain.into_connection_info().map_err(|_| BrokerArgumentError::NotAnAddress)?;
    let (host, port) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (host.clone(), *port),
        // Channels are not in a database, so the number of the database does not matter.
        ConnectionAddr::Unix(path) => {
            let path = path.to_str().filter(|path| path.starts_with('/'));
            (path.ok_or(BrokerArgumentError::NotAnAddress)?.to_owned(), 0)
        }
        _ => return Err(BrokerArgumentError::NotAnAddress),
    };
    if host.is_empty() {
        return Err(BrokerArgumentError::NoHost);
    }
    if host.starts_with('/') && tls.is_some() {
        return Err(BrokerArgumentError::TlsOnSocket);
    }
    let user = info.redis_settings().username().map(str::to_owned);
    let password = info.redis_settings().password().map(str::to_owned);
    Ok(RedisConfig { user, password, tls, ..RedisConfig::at(host, port) })
}

/// Returns the surroundings with TLS on connections to the broker, if it uses TLS.
pub(super) fn with_tls(broker: &RedisConfig, env: Env) -> Result<Env, TlsError> {
    match &broker.tls {
        Some(tls) => env.with_tls(broker.address(), tls),
        None => Ok(env),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(redis: Option<&str>) -> BrokerArguments {
        let redis = redis.map(|url| Url(url.to_owned()));
        BrokerArguments { redis, password_file: None, ca_file: None, certificate_file: None, private_key_file: None }
    }

    fn broker(url: &str) -> RedisConfig {
        arguments(Some(url)).broker_with(None, None).unwrap()
    }

    fn refused(url: &str) -> String {
        arguments(Some(url)).broker_with(None, None).unwrap_err().to_string()
    }

    #[test]
    fn an_address_has_a_host_or_a_socket_and_may_have_credentials() {
        let tcp = broker("redis://user:p%40ss@h:6380/3");
        assert_eq!((tcp.address().to_string(), tcp.user.as_deref()), ("h:6380".to_owned(), Some("user")));
        assert_eq!(tcp.password.as_deref(), Some("p@ss"));
        for url in ["unix:///run/redis.sock", "redis+unix:///run/redis.sock?db=2"] {
            assert_eq!(broker(url).address().to_string(), "/run/redis.sock", "{url}");
        }
        let socket = broker("unix:///run/redis.sock?user=u&pass=p");
        assert_eq!((socket.user.as_deref(), socket.password.as_deref()), (Some("u"), Some("p")));
        assert!(broker("rediss://h").tls.is_some());
    }

    #[test]
    fn an_address_that_is_refused_is_not_printed() {
        for url in ["redis://:precious@h:99999", "http://:precious@h", "precious", "redis://:precious@", "unix://"] {
            let error = refused(url);
            assert!(error.contains("write redis://HOST:PORT") && !error.contains("precious"), "{url}: {error}");
            assert!(!format!("{:?}", arguments(Some(url))).contains("precious"), "{url}");
        }
    }

    #[test]
    fn the_password_of_an_option_or_the_environment_counts_for_any_address() {
        let given = |url| arguments(Some(url)).broker_with(None, Some(Source::Variable("v".into())));
        assert_eq!(given("redis://user@h").unwrap().password.as_deref(), Some("v"));
        let error = given("redis://:precious@h").unwrap_err().to_string();
        assert!(error.contains("by the address and by SQUALL_REDIS_PASSWORD"), "{error}");
        let mut twice = arguments(Some("redis://h"));
        twice.password_file = Some("file".into());
        let error = twice.broker_with(None, Some(Source::Variable("v".into()))).unwrap_err().to_string();
        assert!(error.contains("by --password-file file and by SQUALL_REDIS_PASSWORD"), "{error}");
    }

    #[test]
    fn a_user_needs_a_password() {
        let error = refused("redis://precious@h");
        assert!(
            error.contains("by --password-file or SQUALL_REDIS_PASSWORD") && !error.contains("precious"),
            "{error}"
        );
        assert!(refused("unix:///run/redis.sock?user=u").contains("--password-file"));
    }

    /// Returns a broker in Synapse's configuration, with TLS.
    fn synapse() -> SynapseRedis {
        SynapseRedis {
            host: "synapse".into(),
            port: 1,
            password: Some(SynapsePassword::Text("precious".into())),
            tls: Some(TlsConfig { ca_file: Some("theirs.pem".into()), ..TlsConfig::default() }),
            ca_folder: None,
        }
    }

    #[test]
    fn a_folder_of_authorities_is_refused_unless_a_file_is_given() {
        let in_folder = |ca_file: Option<&str>| {
            let tls = TlsConfig { ca_file: ca_file.map(PathBuf::from), ..TlsConfig::default() };
            SynapseRedis { tls: Some(tls), ca_folder: Some("/etc/ssl".into()), ..synapse() }
        };
        let mut arguments = arguments(None);
        let error = arguments.broker_with(Some(in_folder(None)), None).unwrap_err().to_string();
        assert!(error.contains("/etc/ssl") && error.contains("by --ca-file"), "{error}");
        // Synapse reads both.
        assert!(arguments.broker_with(Some(in_folder(Some("theirs.pem"))), None).is_ok());
        arguments.ca_file = Some("ours.pem".into());
        let tls = arguments.broker_with(Some(in_folder(None)), None).unwrap().tls.unwrap();
        assert_eq!(tls.ca_file, Some("ours.pem".into()));
    }

    #[test]
    fn a_file_for_tls_is_refused_without_tls() {
        for redis in [None, Some("redis://h"), Some("unix:///run/redis.sock")] {
            let mut arguments = arguments(redis);
            arguments.ca_file = Some("ours.pem".into());
            let plain = SynapseRedis { tls: None, ..synapse() };
            let error = arguments.broker_with(Some(plain), None).unwrap_err().to_string();
            assert!(error.contains("--redis rediss://HOST:PORT, or leave the file out"), "{redis:?}: {error}");
        }
    }

    #[test]
    fn synapses_broker_counts_unless_an_address_is_given() {
        let mut arguments = arguments(None);
        let broker = arguments.broker_with(Some(synapse()), None).unwrap();
        assert_eq!((&*broker.host, broker.password.as_deref()), ("synapse", Some("precious")));
        arguments.ca_file = Some("ours.pem".into());
        let tls = arguments.broker_with(Some(synapse()), None).unwrap().tls.unwrap();
        assert_eq!(tls.ca_file, Some("ours.pem".into()));
        let error = arguments.broker_with(Some(synapse()), Some(Source::Variable("v".into()))).unwrap_err();
        assert!(error.to_string().contains("by redis.password of --synapse-config and by SQUALL"), "{error}");
        // The password of one broker is not sent to another one.
        arguments.redis = Some(Url("redis://other".to_owned()));
        arguments.ca_file = None;
        let other = arguments.broker_with(Some(synapse()), None).unwrap();
        assert_eq!((&*other.host, other.password, other.tls), ("other", None, None));
        arguments.redis = None;
        assert!(matches!(arguments.broker_with(None, None), Err(BrokerArgumentError::NotInSynapse)));
    }
}
