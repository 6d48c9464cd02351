//! The writers of a deployment's streams: from options, Squall's configuration or Synapse's.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::synapse_config::SynapseConfig;
use crate::serve::{File, ServeError};
use crate::streams;
use squall_judge::audit::Writers;
use squall_protocol::{InstanceName, StreamName};

/// The writers of the deployment's streams.
#[derive(Debug, Args)]
pub(super) struct WriterArguments {
    /// An instance that writes a stream. Repeat it for each writer of the stream; any other writer is a finding.
    #[arg(long = "writer", value_name = "STREAM=INSTANCE", value_parser = parse_writer)]
    writers: Vec<(StreamName, InstanceName)>,
    /// Squall's configuration file, from which the writers of all its streams are taken.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Synapse's configuration, homeserver.yaml, from which the writers of all streams are taken. Repeat it for the files
    /// of workers.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    synapse_config: Vec<PathBuf>,
}

impl WriterArguments {
    /// Returns the named writers of each stream, among them those of Synapse's configuration.
    pub(super) fn by_stream(&self, synapse: Option<&SynapseConfig>) -> Result<Writers, CliError> {
        let mut by_stream = synapse.map_or_else(Writers::new, |synapse| synapse.writers.clone());
        if let Some(path) = &self.config {
            let config = File::load(path).map_err(ServeError::from)?.config;
            let writers = |stream: &str| (stream.into(), config.writers_of(stream).into_iter().collect());
            by_stream.extend(streams::names().map(writers));
        }
        for (stream, writer) in self.writers.iter().cloned() {
            by_stream.entry(stream).or_default().insert(writer);
        }
        Ok(by_stream)
    }

    /// Reads Synapse's configuration, if files of it were named. They may be pipes, which can be read only once.
    pub(super) fn synapse(&self) -> Result<Option<SynapseConfig>, CliError> {
        if self.synapse_config.is_empty() {
            return Ok(None);
        }
        Ok(Some(SynapseConfig::load(&self.synapse_config)?))
    }
}

/// Parses `STREAM=INSTANCE`.
fn parse_writer(text: &str) -> Result<(StreamName, InstanceName), String> {
    match text.split_once('=') {
        Some((stream, writer)) if !stream.is_empty() && !writer.is_empty() => Ok((stream.into(), writer.into())),
        _ => Err("write a stream's name, =, and an instance's name, such as typing=master".to_owned()),
    }
}
