//! Seeds in processes of their own, several at a time.
//!
//! A process is given one seed after another and answers with one verdict after another. It is watched from here: if it
//! stays silent for too long, holds too much memory or dies, then that is the verdict on the seed it was given, and the
//! next seed is given to a new process. After `SEEDS_PER_PROCESS` seeds a process is replaced anyway.
//!
//! No process outlives this one: it ends when its standard input does, see `worker`.

use std::cell::RefCell;
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use super::tally::Outcome;
use crate::sim::engine::EngineName;
use crate::sim::plan::Scenario;
use crate::sim::verdict::{Conclusion, Verdict};

/// The hidden subcommand that runs [`super::worker`].
pub const WORKER: &str = "soak-worker";
/// How many seeds a process runs before a new one takes its place. A leak then adds up over no more than these, and
/// what starting a process takes is lost among them.
const SEEDS_PER_PROCESS: u64 = 50;
/// How often the memory of a process is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);
/// How much is kept of what a process said on standard error.
const LAST_WORDS_BYTES: usize = 2_000;

/// How a soak is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which engine simulates.
    pub engine: EngineName,
    /// What is soaked.
    pub scenario: Scenario,
    /// How many seeds run at the same time.
    pub jobs: NonZeroUsize,
    /// After how long no more seeds are begun.
    pub time: Option<Duration>,
    /// What a seed may take.
    pub limits: Limits,
}

/// What a seed may take before that is a finding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Real time.
    pub patience: Duration,
    /// Memory of its process, in MiB. Watched on Linux alone.
    pub memory_mib: u64,
}

/// A verdict that has come.
#[derive(Debug)]
pub struct Arrival {
    /// The how manieth seed of the soak it is about, from 0.
    pub ordinal: u64,
    /// The verdict as one JSON object on one line.
    pub line: String,
    /// What it says.
    pub outcome: Outcome,
}

/// How a soak ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every seed has its verdict, or the time is over.
    Complete,
    /// Whoever took the verdicts had enough.
    Enough,
    /// The process was asked to stop by the signal of this number.
    Stopped(i32),
}

/// Why a soak cannot go on.
#[derive(Debug, Error)]
pub enum Error {
    /// A process cannot be started or waited for.
    #[error("cannot start a process: {0}")]
    Start(io::Error),
    /// A verdict could not be taken.
    #[error("cannot take a verdict: {0}")]
    Take(io::Error),
}

/// Runs `seeds` and hands each verdict to `take` as it arrives, whatever the order, until it has had enough.
///
/// # Errors
/// A process cannot be started, or `take` failed.
pub fn run(
    options: &Options,
    seeds: impl Iterator<Item = u64> + 'static,
    take: impl FnMut(Arrival) -> io::Result<ControlFlow<()>>,
) -> Result<Ending, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    // Dropped with everything in it at the end, which kills whoever still runs.
    LocalSet::new().block_on(&runtime, oversee(options, seeds, take))
}

/// Runs this program once more, with the subcommand `command`, and lets it print what it prints. After `patience` it is
/// killed. Returns the number of the signal that asked this process to stop meanwhile, if one did.
///
/// # Errors
/// The process cannot be started.
pub fn run_once(command: &str, arguments: &[&str], patience: Duration) -> Result<Option<i32>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    runtime.block_on(async {
        let mut stop = std::pin::pin!(stop_signal().map_err(Error::Start)?);
        let mut once = Command::new(this_program().map_err(Error::Start)?);
        let mut child = once.arg(command).args(arguments).kill_on_drop(true).spawn().map_err(Error::Start)?;
        tokio::select! {
            signal = &mut stop => Ok(Some(signal)),
            ended = timeout(patience, child.wait()) => match ended {
                Ok(ended) => ended.map(|_| None).map_err(Error::Start),
                Err(_) => Ok(None),
            }
        }
    })
}

async fn oversee(
    options: &Options,
    seeds: impl Iterator<Item = u64> + 'static,
    mut take: impl FnMut(Arrival) -> io::Result<ControlFlow<()>>,
) -> Result<Ending, Error> {
    let mut stop = std::pin::pin!(stop_signal().map_err(Error::Start)?);
    let deadline = options.time.map(|time| Instant::now() + time);
    let in_time = move |_: &_| deadline.is_none_or(|deadline| Instant::now() < deadline);
    let seeds = Rc::new(RefCell::new((0..).zip(seeds.take_while(in_time))));
    let (done, mut arrivals) = mpsc::unbounded_channel();
    for _ in 0..options.jobs.get() {
        let (options, seeds, done) = (options.clone(), Rc::clone(&seeds), done.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = work(&options, &seeds, &done).await {
                let _ = done.send(Err(error));
            }
        });
    }
    drop(done);
    loop {
        tokio::select! {
            signal = &mut stop => return Ok(Ending::Stopped(signal)),
            arrival = arrivals.recv() => match arrival {
                None => return Ok(Ending::Complete),
                Some(arrival) => {
                    let taken = take(arrival.map_err(Error::Start)?).map_err(Error::Take)?;
                    if taken.is_break() {
                        return Ok(Ending::Enough);
                    }
                }
            }
        }
    }
}

/// Gives seeds to one process after another until there are none left.
async fn work(
    options: &Options,
    seeds: &RefCell<impl Iterator<Item = (u64, u64)>>,
    done: &mpsc::UnboundedSender<io::Result<Arrival>>,
) -> io::Result<()> {
    let mut process = None;
    loop {
        // Not as the condition of the loop: the borrow would last as long as its body.
        let Some((ordinal, seed)) = seeds.borrow_mut().next() else { return Ok(()) };
        let mut running = match process.take() {
            Some(running) => running,
            None => Process::start(options)?,
        };
        let (line, outcome) = match running.judge(seed, options.limits).await {
            Ok(verdict) => {
                process = Some(running).filter(|running| running.seeds_given < SEEDS_PER_PROCESS);
                verdict
            }
            Err(cause) => {
                let verdict = running.dead(options, seed, cause).await?;
                (verdict.report(&verdict.reproduction()).to_json(), Outcome::from(&verdict))
            }
        };
        if done.send(Ok(Arrival { ordinal, line, outcome })).is_err() {
            return Ok(());
        }
    }
}

/// Why a process gave no verdict.
enum Cause {
    Silent(Duration),
    TooLarge { mib: u64, limit: u64 },
    Gone,
    Nonsense(String),
}

/// A process that runs seeds.
struct Process {
    child: Child,
    seeds: ChildStdin,
    verdicts: Lines<BufReader<ChildStdout>>,
    last_words: JoinHandle<String>,
    seeds_given: u64,
}

impl Process {
    fn start(options: &Options) -> io::Result<Self> {
        let mut command = Command::new(this_program()?);
        command.args([WORKER, "--engine", options.engine.name(), "--scenario", options.scenario.name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // What the terminal tells its foreground is for the overseer alone; a process that died of Ctrl-C would be a
        // finding.
        #[cfg(unix)]
        command.process_group(0).arg0("squall");
        let mut child = command.spawn()?;
        let (seeds, verdicts) = (child.stdin.take(), child.stdout.take());
        let stderr = child.stderr.take().expect("it is piped");
        Ok(Process {
            seeds: seeds.expect("it is piped"),
            verdicts: BufReader::new(verdicts.expect("it is piped")).lines(),
            last_words: tokio::task::spawn_local(last_words(stderr)),
            child,
            seeds_given: 0,
        })
    }

    /// The verdict on `seed`, as it was said and as it is understood.
    async fn judge(&mut self, seed: u64, limits: Limits) -> Result<(String, Outcome), Cause> {
        self.seeds_given += 1;
        // A process that is gone cannot be written to; that it is gone is noticed at the reading end.
        let _ = self.seeds.write_all(format!("{seed}\n").as_bytes()).await;
        let pid = self.child.id();
        tokio::select! {
            // A verdict that is there counts, also if this process was suspended until long after.
            biased;
            line = self.verdicts.next_line() => match line {
                Ok(Some(line)) => match serde_json::from_str::<Outcome>(&line) {
                    Ok(outcome) if outcome.seed == seed => Ok((line, outcome)),
                    _ => Err(Cause::Nonsense(line)),
                },
                Ok(None) | Err(_) => Err(Cause::Gone),
            },
            () = sleep(limits.patience) => Err(Cause::Silent(limits.patience)),
            mib = outgrows(pid, limits.memory_mib) => Err(Cause::TooLarge { mib, limit: limits.memory_mib }),
        }
    }

    /// Makes sure that the process is dead, and gives the verdict on the seed that it died of.
    async fn dead(mut self, options: &Options, seed: u64, cause: Cause) -> io::Result<Verdict> {
        // One that has ended by itself must be asked how before it is killed.
        let status = match cause {
            Cause::Gone => tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await.ok().transpose()?,
            _ => None,
        };
        if status.is_none() {
            self.child.kill().await?;
        }
        let (conclusion, how) = match cause {
            Cause::Silent(patience) => (Conclusion::Hung, format!("killed after {} s", patience.as_secs_f64())),
            Cause::TooLarge { mib, limit } => {
                (Conclusion::OutOfMemory, format!("killed at {mib} MiB, of which it may have {limit}"))
            }
            Cause::Gone => (Conclusion::Crashed, ended(status)),
            Cause::Nonsense(line) => (Conclusion::Crashed, format!("printed what is no verdict: {line}")),
        };
        let mut death = format!("{how}, at seed {} of the process", self.seeds_given);
        let last_words = self.last_words.await.unwrap_or_default();
        if !last_words.trim().is_empty() {
            death.push('\n');
            death.push_str(last_words.trim_end());
        }
        Ok(Verdict { engine: options.engine, ..Verdict::dead(options.scenario, seed, conclusion, death) })
    }
}

fn ended(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "closed its standard output".to_owned(), |status| status.to_string())
}

/// The end of what is said on `stderr`, once all has been said.
async fn last_words(mut stderr: ChildStderr) -> String {
    let mut words = Vec::new();
    while let Ok(1..) = stderr.read_buf(&mut words).await {
        if words.len() > 2 * LAST_WORDS_BYTES {
            words.drain(..words.len() - LAST_WORDS_BYTES);
        }
    }
    words.drain(..words.len().saturating_sub(LAST_WORDS_BYTES));
    String::from_utf8_lossy(&words).into_owned()
}

/// Ends when the process holds more than `limit` MiB, with how many it holds. Never where that cannot be told.
async fn outgrows(pid: Option<u32>, limit: u64) -> u64 {
    loop {
        sleep(MEMORY_INTERVAL).await;
        if let Some(mib) = pid.and_then(resident_mib).filter(|mib| *mib > limit) {
            return mib;
        }
    }
}

/// How many MiB of memory the process holds, where Linux tells.
fn resident_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// The program that this process runs; on Linux also when its file has been replaced since, as by a build during a
/// night's soak.
pub(super) fn this_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// Ends, with its number, when a signal asks this process to stop.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = i32>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    })
}

/// Ends when Ctrl-C asks this process to stop.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = i32>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
        2
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_known_as_long_as_it_runs() {
        assert!(resident_mib(std::process::id()).is_some_and(|mib| (1..100_000).contains(&mib)));
        assert_eq!(resident_mib(u32::MAX), None);
    }
}
