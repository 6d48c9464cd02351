//! The folder of a soak: the soak's arguments and every verdict so far, so that an interrupted soak can be resumed.
//!
//! - `soak.json` has the soak's arguments. It is written before the first verdict. A soak with other arguments is refused.
//! - `verdicts.jsonl` has one verdict on each line, in the order of arrival. A process that is killed may leave half a
//!   line; the resumed soak drops it and runs that seed again.
//! - `summary.json` has the counts over all verdicts. It is written when the soak ends, and removed before the soak is
//!   resumed, so a summary with `"complete": true` covers the whole soak.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::processes::this_program;
use super::seeds::Seeds;
use super::tally::{Outcome, Tally};
use crate::sim::plan::Scenario;
use squall_netsim::EngineName;

/// The version of the folder's format.
pub const FORMAT: u32 = 1;

/// The arguments of a soak, and the program that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the folder's format: [`FORMAT`].
    format: u32,
    /// Squall's version.
    squall: String,
    /// A hash of the program. Two builds of one version may give different verdicts.
    build: String,
    #[serde(default)]
    engine: EngineName,
    scenario: Scenario,
    /// The range of seeds, `A..B`, or the first one, `A..`.
    seeds: String,
    shard: String,
}

impl Manifest {
    /// Returns the manifest of a soak by this program.
    ///
    /// # Errors
    /// The program's file cannot be read.
    pub fn new(engine: EngineName, scenario: Scenario, seeds: Seeds) -> io::Result<Self> {
        let (seeds, shard) = match seeds {
            Seeds::Range(range, shard) => (range.to_string(), shard),
            Seeds::From(first, shard) => (format!("{first}.."), shard),
        };
        Ok(Manifest {
            format: FORMAT,
            squall: env!("CARGO_PKG_VERSION").to_owned(),
            build: format!("{:016x}", xxh3_64(&fs::read(this_program()?)?)),
            engine,
            scenario,
            seeds,
            shard: shard.to_string(),
        })
    }

    /// Returns the first field in which the manifests differ, with both values.
    fn difference(&self, other: &Manifest) -> Option<String> {
        let fields = |manifest: &Manifest| match serde_json::to_value(manifest) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => unreachable!("a manifest is an object"),
        };
        let ours = fields(self);
        let theirs = fields(other);
        let differing = ours.into_iter().find(|(name, value)| theirs.get(name) != Some(value));
        differing.map(|(name, value)| format!("{name} {value}, not {}", theirs[&name]))
    }
}

/// A folder that cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The folder or a file in it cannot be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// Another process is writing to it.
    #[error("{0} is in use by another soak: wait for it, or name another folder")]
    Locked(PathBuf),
    /// The folder holds another soak.
    #[error("{0} holds another soak, with {1}: name another folder, or give the same arguments to the same build")]
    Other(PathBuf, String),
    /// The folder holds verdicts without a manifest.
    #[error("{0} has verdicts but no soak.json, so they cannot be resumed: name another folder")]
    Unknown(PathBuf),
    /// The content of a file was not written by a soak.
    #[error("{path}, line {line}: {cause}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The error in it.
        cause: String,
    },
}

/// The folder of a running soak. No other process writes to it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    manifest: Manifest,
    /// The file of the verdicts. It is locked as long as it is open.
    verdicts: File,
}

/// The verdicts that a folder holds already.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The seeds that have a verdict.
    pub seeds: BTreeSet<u64>,
    /// Counts over the verdicts.
    pub tally: Tally,
}

#[derive(Serialize)]
struct Summary<'a> {
    complete: bool,
    soak: &'a Manifest,
    #[serde(flatten)]
    tally: &'a Tally,
}

impl Folder {
    /// Opens the folder, or creates it, and reads the verdicts that it holds.
    ///
    /// # Errors
    /// The folder holds a soak with another manifest, is in use, or cannot be read or written.
    pub fn open(path: &Path, manifest: Manifest) -> Result<(Folder, Recorded), FolderError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| FolderError::Io(path, error)
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let file = path.join("verdicts.jsonl");
        let mut verdicts =
            OpenOptions::new().read(true).append(true).create(true).open(&file).map_err(failed(&file))?;
        match verdicts.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::Locked(path.to_owned())),
            // Some file systems do not support locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(FolderError::Io(file, error)),
        }
        let manifest_path = path.join("soak.json");
        match fs::read_to_string(&manifest_path) {
            Ok(text) => {
                let malformed = |error: serde_json::Error| FolderError::Malformed {
                    path: manifest_path.clone(),
                    line: error.line(),
                    cause: error.to_string(),
                };
                let held: Manifest = serde_json::from_str(&text).map_err(malformed)?;
                if let Some(difference) = held.difference(&manifest) {
                    return Err(FolderError::Other(path.to_owned(), difference));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if verdicts.metadata().map_err(failed(&file))?.len() > 0 {
                    return Err(FolderError::Unknown(path.to_owned()));
                }
                write_whole(&manifest_path, &manifest).map_err(failed(&manifest_path))?;
            }
            Err(error) => return Err(FolderError::Io(manifest_path, error)),
        }
        let summary = path.join("summary.json");
        match fs::remove_file(&summary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FolderError::Io(summary, error)),
            _ => {}
        }
        let recorded = read(&mut verdicts, &file)?;
        Ok((Folder { path: path.to_owned(), manifest, verdicts }, recorded))
    }

    /// Adds the line of a verdict.
    ///
    /// # Errors
    /// The line cannot be written.
    pub fn record(&mut self, line: &str) -> io::Result<()> {
        self.verdicts.write_all(format!("{line}\n").as_bytes())
    }

    /// Writes the summary at the end of the soak. `complete` is true if every seed has a verdict.
    ///
    /// # Errors
    /// The summary cannot be written.
    pub fn finish(self, complete: bool, tally: &Tally) -> io::Result<()> {
        self.verdicts.sync_all()?;
        let summary = Summary { complete, soak: &self.manifest, tally };
        write_whole(&self.path.join("summary.json"), &summary)
    }
}

/// Reads all verdicts, and removes an unfinished line at the end.
fn read(verdicts: &mut File, path: &Path) -> Result<Recorded, FolderError> {
    let failed = |error| FolderError::Io(path.to_owned(), error);
    let mut recorded = Recorded::default();
    let mut reader = BufReader::new(&*verdicts);
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut whole = 0;
    for number in 1.. {
        let mut line = Vec::new();
        let length = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        whole += length as u64;
        let malformed = |cause| FolderError::Malformed { path: path.to_owned(), line: number, cause };
        let outcome: Outcome = serde_json::from_slice(&line).map_err(|error| malformed(error.to_string()))?;
        if !recorded.seeds.insert(outcome.seed) {
            return Err(malformed(format!("a second verdict on seed {}", outcome.seed)));
        }
        recorded.tally.add(outcome);
    }
    verdicts.set_len(whole).map_err(failed)?;
    Ok(recorded)
}

/// Writes a file so that it is complete or absent, even if the process is killed meanwhile.
fn write_whole(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    let text = serde_json::to_string_pretty(content).expect("it is plain data");
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests;
