//! The password of the broker. It is never printed, and no error has it.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The environment variable with the password.
pub(super) const VARIABLE: &str = "SQUALL_REDIS_PASSWORD";

/// A place that has the password.
#[derive(PartialEq, Eq)]
pub(super) enum Source {
    /// The address of the broker.
    Address(String),
    /// The file of `--password-file`.
    File(PathBuf),
    /// The environment variable.
    Variable(OsString),
    /// `redis.password` in Synapse's configuration.
    Synapse(String),
    /// The file of `redis.password_path` in Synapse's configuration.
    SynapseFile(PathBuf),
}

/// An error about the password.
#[derive(Debug, PartialEq, Eq, Error)]
pub(in crate::cli) enum PasswordError {
    /// Two places have a password.
    #[error("the password of the broker is given twice, by {first} and by {second}: keep one of them")]
    Twice {
        /// The first place.
        first: String,
        /// The second place.
        second: String,
    },
    /// The place has no password.
    #[error("{0} has no password in it: it is empty")]
    Empty(String),
    /// The file cannot be read.
    #[error("cannot read the password of the broker from {path}: {error}", path = path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error.
        error: String,
    },
    /// The password is not text.
    #[error("{0} is not text in UTF-8")]
    NotText(String),
}

impl Source {
    /// Returns the place in the environment, if the variable is set.
    pub(super) fn from_environment() -> Option<Source> {
        env::var_os(VARIABLE).map(Source::Variable)
    }

    /// Returns the name of the place.
    fn name(&self) -> String {
        match self {
            Source::Address(_) => "the address".to_owned(),
            Source::File(path) => format!("--password-file {}", path.display()),
            Source::Variable(_) => VARIABLE.to_owned(),
            Source::Synapse(_) => "redis.password of --synapse-config".to_owned(),
            Source::SynapseFile(path) => format!("redis.password_path of --synapse-config, {}", path.display()),
        }
    }

    /// Returns the password in this place.
    fn password(&self) -> Result<String, PasswordError> {
        let password = match self {
            Source::Address(password) | Source::Synapse(password) => password.clone(),
            Source::Variable(value) => match value.to_str() {
                Some(password) => password.to_owned(),
                None => return Err(PasswordError::NotText(self.name())),
            },
            Source::File(path) | Source::SynapseFile(path) => read(path)?,
        };
        if password.is_empty() { Err(PasswordError::Empty(self.name())) } else { Ok(password) }
    }
}

/// Returns the password, if any of these places has one. More than one is an error.
pub(super) fn only(places: impl IntoIterator<Item = Source>) -> Result<Option<String>, PasswordError> {
    let mut places = places.into_iter();
    let Some(first) = places.next() else { return Ok(None) };
    if let Some(second) = places.next() {
        return Err(PasswordError::Twice { first: first.name(), second: second.name() });
    }
    first.password().map(Some)
}

/// Reads a password from a file. White space around it, such as the end of the line, is not a part of it.
fn read(path: &Path) -> Result<String, PasswordError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let error = match error.kind() {
            io::ErrorKind::InvalidData => "it is not text in UTF-8".to_owned(),
            _ => error.to_string(),
        };
        PasswordError::Read { path: path.to_owned(), error }
    })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> PathBuf {
        let path = env::temp_dir().join(format!("squall-password-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn a_password_comes_from_the_only_place_that_has_one() {
        let path = file("one", b"from the file\n");
        assert_eq!(only([]), Ok(None));
        assert_eq!(only([Source::Address("a".into())]), Ok(Some("a".into())));
        assert_eq!(only([Source::File(path.clone())]), Ok(Some("from the file".into())));
        assert_eq!(only([Source::SynapseFile(path.clone())]), Ok(Some("from the file".into())));
        assert_eq!(only([Source::Variable("v".into())]), Ok(Some("v".into())));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_password_that_is_given_twice_is_an_error_without_it() {
        let error = only([Source::Variable("precious".into()), Source::Address("precious".into())]).unwrap_err();
        let expected = "the password of the broker is given twice, by SQUALL_REDIS_PASSWORD and by the address: keep \
            one of them";
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("precious"));
    }

    #[test]
    fn an_empty_or_unreadable_place_is_an_error() {
        let empty = file("empty", b" \n");
        let binary = file("binary", b"\xff\xfe");
        let error = |source| only([source]).unwrap_err().to_string();
        assert!(error(Source::File(empty.clone())).ends_with("-empty has no password in it: it is empty"));
        assert_eq!(error(Source::Variable("".into())), "SQUALL_REDIS_PASSWORD has no password in it: it is empty");
        assert!(error(Source::File(binary.clone())).ends_with("-binary: it is not text in UTF-8"));
        let missing = error(Source::File("no-such-file".into()));
        assert!(missing.starts_with("cannot read the password of the broker from no-such-file: "), "{missing}");
        for path in [empty, binary] {
            std::fs::remove_file(path).unwrap();
        }
    }
}
