//! YAML files of Synapse, read key by key. Each error names the file and the key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use saphyr::{ScalarOwned as Scalar, ScanError, YamlLoader, YamlOwned as Yaml};
use saphyr_parser::Parser;
use thiserror::Error;

/// An error in a configuration file of Synapse. No error has a value in it, which may be a secret.
#[derive(Debug, Error)]
pub(in crate::cli) enum DocumentError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}. Name Synapse's homeserver.yaml, or the file of one of its workers", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The file is not YAML.
    #[error("{} is not YAML: {error}", path.display())]
    Parse {
        /// The path of the file.
        path: PathBuf,
        /// The error, with its line.
        error: ScanError,
    },
    /// The file is not a mapping from keys to values.
    #[error("{} is {found}, not keys with values: name Synapse's homeserver.yaml", path.display())]
    NotAMapping {
        /// The path of the file.
        path: PathBuf,
        /// The shape of its content.
        found: &'static str,
    },
    /// The value of a key has the wrong shape.
    #[error("{}: {key} must be {expected}, and is {found}", path.display())]
    Shape {
        /// The path of the file.
        path: PathBuf,
        /// The key, with the keys above it.
        key: String,
        /// The shape that Synapse expects.
        expected: &'static str,
        /// The shape of the value.
        found: &'static str,
    },
}

/// A configuration file that has been read.
pub(super) struct Document {
    path: PathBuf,
    root: Yaml,
}

impl fmt::Debug for Document {
    /// Writes the path alone, because any value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Document {
    /// Reads a file.
    pub(super) fn load(path: &Path) -> Result<Self, DocumentError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| DocumentError::Read { path: path.to_owned(), error })?;
        Document::parse(path, &text)
    }

    /// Parses the text of a file.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, DocumentError> {
        let path = path.to_owned();
        let mut loader = YamlLoader::default();
        // The last of two values of one key counts, as for Synapse.
        loader.allow_duplicate_keys(true);
        if let Err(error) = Parser::new_from_str(text).load(&mut loader, false) {
            return Err(DocumentError::Parse { path, error });
        }
        if let Some(error) = loader.error() {
            return Err(DocumentError::Parse { path, error: error.clone() });
        }
        let root = loader.into_documents().into_iter().next().unwrap_or(Yaml::Value(Scalar::Null));
        match untagged(&root) {
            Yaml::Mapping(_) => Ok(Document { path, root }),
            other => Err(DocumentError::NotAMapping { path, found: shape(other) }),
        }
    }

    /// Returns the value of a key of the file, if it has one.
    pub(super) fn get(&self, key: &str) -> Option<Node<'_>> {
        Node { document: self, key: String::new(), value: &self.root }.get(key)
    }
}

/// A value in a document.
#[derive(Clone)]
pub(super) struct Node<'a> {
    document: &'a Document,
    /// Its key, with the keys above it.
    key: String,
    value: &'a Yaml,
}

impl<'a> Node<'a> {
    /// Returns the key, with the keys above it.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Returns the file that the value is in.
    pub(super) fn path(&self) -> &'a Path {
        &self.document.path
    }

    /// Returns the value of a key of this mapping. A key without a value counts as absent, as for Synapse.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = lookup(self.value, key)?;
        let key = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        (!matches!(value, Yaml::Value(Scalar::Null))).then_some(Node { document: self.document, key, value })
    }

    /// Returns the keys of this mapping.
    pub(super) fn keys(&self) -> Result<Vec<&'a str>, DocumentError> {
        let mut keys = Vec::new();
        collect_keys(self.mapping()?, &mut keys);
        Ok(keys)
    }

    /// Returns this node, if it is a mapping.
    pub(super) fn mapping(&self) -> Result<&'a Yaml, DocumentError> {
        match untagged(self.value) {
            mapping @ Yaml::Mapping(_) => Ok(mapping),
            _ => Err(self.shape_error("keys with values")),
        }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> Result<&'a str, DocumentError> {
        match untagged(self.value) {
            Yaml::Value(Scalar::String(text)) if !text.is_empty() => Ok(text),
            _ => Err(self.shape_error("text")),
        }
    }

    /// Returns the port.
    pub(super) fn port(&self) -> Result<u16, DocumentError> {
        let port = match untagged(self.value) {
            Yaml::Value(Scalar::Integer(number)) => u16::try_from(*number).ok(),
            _ => None,
        };
        port.ok_or_else(|| self.shape_error("a port"))
    }

    /// Returns the truth value. YAML 1.1, which Synapse reads, also has `yes`, `no`, `on` and `off`.
    pub(super) fn truth(&self) -> Result<bool, DocumentError> {
        let truth = match untagged(self.value) {
            Yaml::Value(Scalar::Boolean(truth)) => Some(*truth),
            Yaml::Value(Scalar::String(text)) => match &*text.to_ascii_lowercase() {
                "yes" | "on" => Some(true),
                "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        truth.ok_or_else(|| self.shape_error("true or false"))
    }

    /// Returns the names: one text, or a list of several.
    pub(super) fn names(&self) -> Result<Vec<&'a str>, DocumentError> {
        let expected = "the name of an instance, or a list of such names";
        match untagged(self.value) {
            Yaml::Sequence(values) if !values.is_empty() => {
                let mut names = Vec::new();
                for value in values {
                    let node = Node { document: self.document, key: self.key.clone(), value };
                    names.push(node.text().map_err(|_| self.shape_error(expected))?);
                }
                Ok(names)
            }
            _ => Ok(vec![self.text().map_err(|_| self.shape_error(expected))?]),
        }
    }

    fn shape_error(&self, expected: &'static str) -> DocumentError {
        let path = self.document.path.clone();
        DocumentError::Shape { path, key: self.key.clone(), expected, found: shape(untagged(self.value)) }
    }
}

/// Looks a key up in a mapping, then in the mappings that it includes by `<<`.
fn lookup<'a>(value: &'a Yaml, key: &str) -> Option<&'a Yaml> {
    let value = untagged(value);
    if let Some(found) = value.as_mapping_get(key) {
        return Some(found);
    }
    included(value).into_iter().find_map(|mapping| lookup(mapping, key))
}

fn collect_keys<'a>(mapping: &'a Yaml, keys: &mut Vec<&'a str>) {
    let Some(entries) = mapping.as_mapping() else { return };
    for key in entries.keys().filter_map(Yaml::as_str) {
        if key != "<<" && !keys.contains(&key) {
            keys.push(key);
        }
    }
    for mapping in included(mapping) {
        collect_keys(untagged(mapping), keys);
    }
}

/// Returns the mappings that a mapping includes by `<<`, one or a list.
fn included(mapping: &Yaml) -> Vec<&Yaml> {
    match mapping.as_mapping_get("<<") {
        Some(Yaml::Sequence(mappings)) => mappings.iter().collect(),
        Some(mapping) => vec![mapping],
        None => Vec::new(),
    }
}

fn untagged(value: &Yaml) -> &Yaml {
    match value {
        Yaml::Tagged(_, value) => untagged(value),
        value => value,
    }
}

/// Returns the shape of a value, in words.
fn shape(value: &Yaml) -> &'static str {
    match value {
        Yaml::Value(Scalar::Null) => "empty",
        Yaml::Value(Scalar::Boolean(_)) => "true or false",
        Yaml::Value(Scalar::Integer(_) | Scalar::FloatingPoint(_)) => "a number",
        Yaml::Value(Scalar::String(text)) if text.is_empty() => "empty text",
        Yaml::Value(Scalar::String(_)) => "text",
        Yaml::Sequence(values) if values.is_empty() => "an empty list",
        Yaml::Sequence(_) => "a list",
        Yaml::Mapping(_) => "keys with values",
        _ => "not a value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Document {
        Document::parse(Path::new("h.yaml"), text).unwrap()
    }

    fn error(text: &str) -> String {
        Document::parse(Path::new("h.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_is_not_keys_with_values_is_an_error() {
        assert_eq!(error(""), "h.yaml is empty, not keys with values: name Synapse's homeserver.yaml");
        assert_eq!(error("- a\n"), "h.yaml is a list, not keys with values: name Synapse's homeserver.yaml");
        let text = error("a: [1\nb: 2\n");
        assert!(text.starts_with("h.yaml is not YAML: ") && text.contains("line 2"), "{text}");
    }

    #[test]
    fn the_last_of_two_values_counts_and_no_value_is_none() {
        let document = parsed("a: 1\na: text\nb:\nc: ~\n");
        assert_eq!(document.get("a").unwrap().text().unwrap(), "text");
        assert!(document.get("b").is_none() && document.get("c").is_none() && document.get("d").is_none());
    }

    #[test]
    fn anchors_and_included_mappings_are_resolved() {
        let document =
            parsed("base: &base {host: h, port: 1}\nredis:\n  <<: *base\n  port: 2\nmore:\n  <<: [*base, {tls: on}]\n");
        let redis = document.get("redis").unwrap();
        assert_eq!((redis.get("host").unwrap().text().unwrap(), redis.get("port").unwrap().port().unwrap()), ("h", 2));
        let more = document.get("more").unwrap();
        assert!(more.get("tls").unwrap().truth().unwrap());
        assert_eq!(more.keys().unwrap(), ["host", "port", "tls"]);
    }

    #[test]
    fn words_of_yaml_1_1_are_truth_values() {
        for (text, truth) in [("yes", true), ("On", true), ("true", true), ("no", false), ("OFF", false)] {
            assert_eq!(parsed(&format!("a: {text}")).get("a").unwrap().truth().unwrap(), truth, "{text}");
        }
        let document = parsed("a: maybe");
        let error = document.get("a").unwrap().truth().unwrap_err().to_string();
        assert_eq!(error, "h.yaml: a must be true or false, and is text");
    }

    #[test]
    fn a_wrong_shape_is_an_error_with_the_key_and_without_the_value() {
        let document = parsed("redis: {port: secret, password: 1234567, host: [x]}\nwriters: [a, 2]\nnone: []\n");
        let redis = document.get("redis").unwrap();
        let error_of = |key: &str| redis.get(key).unwrap();
        assert_eq!(error_of("port").port().unwrap_err().to_string(), "h.yaml: redis.port must be a port, and is text");
        let number = error_of("password").text().unwrap_err().to_string();
        assert_eq!(number, "h.yaml: redis.password must be text, and is a number");
        assert_eq!(error_of("host").text().unwrap_err().to_string(), "h.yaml: redis.host must be text, and is a list");
        let names = document.get("writers").unwrap().names().unwrap_err().to_string();
        assert!(names.starts_with("h.yaml: writers must be the name of an instance, or a list"), "{names}");
        let none = document.get("none").unwrap().names().unwrap_err().to_string();
        assert!(none.ends_with("and is an empty list"), "{none}");
        let key = document.get("none").unwrap().keys().unwrap_err().to_string();
        assert_eq!(key, "h.yaml: none must be keys with values, and is an empty list");
    }
}
