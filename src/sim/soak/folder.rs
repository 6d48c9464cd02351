//! What a soak keeps: a folder that says what the soak is and every verdict so far, so that one that was cut short goes
//! on where it was.
//!
//! - `soak.json` says what is soaked. It is there before the first verdict, and another soak is refused.
//! - `verdicts.jsonl` has each verdict as one line, in the order in which they came. A process that is killed in the
//!   middle of a line leaves half of one; whoever takes the soak up again drops it and runs that seed once more.
//! - `summary.json` is there when the soak is over, and says what all the verdicts come to. It is the first thing to go
//!   when the soak is taken up again, so one that says `"complete": true` is about all of it.

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
use crate::sim::engine::EngineName;
use crate::sim::plan::Scenario;

/// The version of the folder's form.
pub const FORMAT: u32 = 1;

/// What is soaked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the folder's form: [`FORMAT`].
    format: u32,
    /// Squall's version.
    squall: String,
    /// A hash of the program: two builds of one version may come to different verdicts.
    build: String,
    #[serde(default)]
    engine: EngineName,
    scenario: Scenario,
    /// The range of seeds, `A..B`, or the first one, `A..`.
    seeds: String,
    shard: String,
}

impl Manifest {
    /// What this very program soaks.
    ///
    /// # Errors
    /// The program's own file cannot be read.
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

    /// The first thing in which `self` differs from `other`, and how.
    fn difference(&self, other: &Manifest) -> Option<String> {
        let fields = |manifest: &Manifest| match serde_json::to_value(manifest) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => unreachable!("a manifest is an object"),
        };
        let (ours, theirs) = (fields(self), fields(other));
        let differing = ours.into_iter().find(|(name, value)| theirs.get(name) != Some(value));
        differing.map(|(name, value)| format!("{name} {value}, not {}", theirs[&name]))
    }
}

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// A file in it, or the folder itself, cannot be used.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// Another process is writing to it.
    #[error("{0}: another soak is writing there")]
    Locked(PathBuf),
    /// It holds another soak.
    #[error("{0} holds another soak, of {1}: name another folder, or give the same arguments to the same build")]
    Other(PathBuf, String),
    /// It holds something, and nothing says what.
    #[error("{0} has verdicts but no soak.json that says of what: name another folder")]
    Unknown(PathBuf),
    /// A file says what no soak has written.
    #[error("{path}, line {line}: {cause}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        cause: String,
    },
}

/// The folder of a soak under way. No other process writes to it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    manifest: Manifest,
    /// Locked, for as long as it is open.
    verdicts: File,
}

/// What a folder holds already.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The seeds that have a verdict.
    pub seeds: BTreeSet<u64>,
    /// What the verdicts come to.
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
    /// Opens the folder, makes it if there is none, and reads what it holds.
    ///
    /// # Errors
    /// It holds another soak than `manifest` says, is in use, or cannot be used.
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
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(FolderError::Io(file, error)),
        }
        let said = path.join("soak.json");
        match fs::read_to_string(&said) {
            Ok(text) => {
                let malformed = |error: serde_json::Error| FolderError::Malformed {
                    path: said.clone(),
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
                write_whole(&said, &manifest).map_err(failed(&said))?;
            }
            Err(error) => return Err(FolderError::Io(said, error)),
        }
        let summary = path.join("summary.json");
        match fs::remove_file(&summary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FolderError::Io(summary, error)),
            _ => {}
        }
        let recorded = read(&mut verdicts, &file)?;
        Ok((Folder { path: path.to_owned(), manifest, verdicts }, recorded))
    }

    /// Adds a verdict.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(&mut self, line: &str) -> io::Result<()> {
        self.verdicts.write_all(format!("{line}\n").as_bytes())
    }

    /// Says what all the verdicts come to. The soak is over, `complete` or not.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self, complete: bool, tally: &Tally) -> io::Result<()> {
        self.verdicts.sync_all()?;
        let summary = Summary { complete, soak: &self.manifest, tally };
        write_whole(&self.path.join("summary.json"), &summary)
    }
}

/// Reads all the verdicts and drops half a line at the end.
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
            return Err(malformed(format!("seed {} for the second time", outcome.seed)));
        }
        recorded.tally.add(outcome);
    }
    verdicts.set_len(whole).map_err(failed)?;
    Ok(recorded)
}

/// Writes a file that is there whole or not at all, whenever the process is killed.
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
