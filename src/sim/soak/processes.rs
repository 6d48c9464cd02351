//! Runs seeds in processes of their own, several at a time.
//!
//! A process receives one seed after another, and answers each with a verdict. This process watches it. If the process
//! exceeds the time or memory limit for a seed, or ends, that is the verdict on the seed, and the next seed goes to a new
//! process. After `SEEDS_PER_PROCESS` seeds a process is replaced anyway.
//!
//! No process outlives this one: it ends when its standard input is closed. See [`super::worker`].

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
use crate::sim::memory::resident_mib;
use crate::sim::plan::Scenario;
use crate::sim::verdict::{Conclusion, Verdict};
use squall_netsim::EngineName;

/// The hidden subcommand that runs [`super::worker`].
pub const WORKER: &str = "soak-worker";
/// Number of seeds that a process runs before it is replaced. It limits the effect of a memory leak, and is large enough
/// that the cost of starting a process does not matter.
const SEEDS_PER_PROCESS: u64 = 50;
/// Interval between two readings of a process's memory.
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);
/// Number of bytes that are kept of a process's standard error.
const STDERR_BYTES_MAX: usize = 2_000;

/// The options of a soak.
#[derive(Debug, Clone)]
pub struct Options {
    /// The engine that simulates the network.
    pub engine: EngineName,
    /// The scenario that plans are drawn for.
    pub scenario: Scenario,
    /// Number of seeds that run at the same time.
    pub jobs: NonZeroUsize,
    /// Time after which no more seeds are started.
    pub time: Option<Duration>,
    /// The limits of each seed.
    pub limits: Limits,
}

/// Limits of a seed. A seed that exceeds one is a finding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most real time for one verdict.
    pub timeout: Duration,
    /// Most memory of the seed's process, in MiB. Linux only.
    pub memory_mib: u64,
}

/// A verdict that a process has printed, or that follows from the process's end.
#[derive(Debug)]
pub struct Arrival {
    /// Place of the seed in the soak, from 0.
    pub ordinal: u64,
    /// The verdict as one JSON object on one line.
    pub line: String,
    /// The verdict, parsed.
    pub outcome: Outcome,
}

/// The ways in which a soak ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every seed has its verdict, or the time is over.
    Complete,
    /// The callback for verdicts returned [`ControlFlow::Break`].
    Enough,
    /// The signal of this number stopped the process.
    Stopped(i32),
}

/// An error that ends a soak.
#[derive(Debug, Error)]
pub enum Error {
    /// A process cannot be started or waited for.
    #[error("cannot start a process: {0}")]
    Start(io::Error),
    /// The callback for verdicts failed.
    #[error("cannot report a verdict: {0}")]
    Report(io::Error),
}

/// Runs `seeds` and passes each verdict to `report` as it arrives, in any order, until it returns
/// [`ControlFlow::Break`].
///
/// # Errors
/// A process cannot be started, or `report` failed.
pub fn run(
    options: &Options,
    seeds: impl Iterator<Item = u64> + 'static,
    report: impl FnMut(Arrival) -> io::Result<ControlFlow<()>>,
) -> Result<Ending, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    // At the end the set is dropped with its tasks, which kills every process that still runs.
    LocalSet::new().block_on(&runtime, oversee(options, seeds, report))
}

/// Runs this program in another process, with the subcommand `command` and the same output. Kills it after `time_max`.
/// Returns the number of the signal that stopped this process meanwhile, if one did.
///
/// # Errors
/// The process cannot be started.
pub fn run_once(command: &str, arguments: &[&str], time_max: Duration) -> Result<Option<i32>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    runtime.block_on(async {
        let mut stop = std::pin::pin!(stop_signal().map_err(Error::Start)?);
        let mut once = Command::new(this_program().map_err(Error::Start)?);
        let mut child = once.arg(command).args(arguments).kill_on_drop(true).spawn().map_err(Error::Start)?;
        tokio::select! {
            signal = &mut stop => Ok(Some(signal)),
            ended = timeout(time_max, child.wait()) => match ended {
                Ok(ended) => ended.map(|_| None).map_err(Error::Start),
                Err(_) => Ok(None),
            }
        }
    })
}

async fn oversee(
    options: &Options,
    seeds: impl Iterator<Item = u64> + 'static,
    mut report: impl FnMut(Arrival) -> io::Result<ControlFlow<()>>,
) -> Result<Ending, Error> {
    let mut stop = std::pin::pin!(stop_signal().map_err(Error::Start)?);
    let deadline = options.time.map(|time| Instant::now() + time);
    let in_time = move |_: &_| deadline.is_none_or(|deadline| Instant::now() < deadline);
    let seeds = Rc::new(RefCell::new((0..).zip(seeds.take_while(in_time))));
    let (done, mut arrivals) = mpsc::unbounded_channel();
    for _ in 0..options.jobs.get() {
        let options = options.clone();
        let seeds = Rc::clone(&seeds);
        let done = done.clone();
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
                    let flow = report(arrival.map_err(Error::Start)?).map_err(Error::Report)?;
                    if flow.is_break() {
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
        // This is not the condition of the loop, because the borrow would then last as long as the loop's body.
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
                let verdict = running.into_verdict(options, seed, cause).await?;
                (verdict.report(&verdict.reproduction()).to_json(), Outcome::from(&verdict))
            }
        };
        if done.send(Ok(Arrival { ordinal, line, outcome })).is_err() {
            return Ok(());
        }
    }
}

/// The reason why a process printed no verdict.
enum Cause {
    TimedOut(Duration),
    OutOfMemory { mib: u64, limit: u64 },
    Ended,
    Malformed(String),
}

/// A process that runs seeds.
struct Process {
    child: Child,
    seeds: ChildStdin,
    verdicts: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
    seeds_given: u64,
}

impl Process {
    fn start(options: &Options) -> io::Result<Self> {
        let mut command = Command::new(this_program()?);
        command.args([WORKER, "--engine", options.engine.name(), "--scenario", options.scenario.name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A signal from the terminal must reach this process only. A child that Ctrl-C ended would be a finding.
        #[cfg(unix)]
        command.process_group(0).arg0("squall");
        let mut child = command.spawn()?;
        let seeds = child.stdin.take().expect("it is piped");
        let verdicts = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        Ok(Process {
            seeds,
            verdicts: BufReader::new(verdicts).lines(),
            stderr: tokio::task::spawn_local(read_end(stderr)),
            child,
            seeds_given: 0,
        })
    }

    /// Waits for the verdict on `seed`. Returns its line, and its content.
    async fn judge(&mut self, seed: u64, limits: Limits) -> Result<(String, Outcome), Cause> {
        self.seeds_given += 1;
        // Writing fails if the process has ended. Reading notices that too.
        let _ = self.seeds.write_all(format!("{seed}\n").as_bytes()).await;
        let pid = self.child.id();
        tokio::select! {
            // A verdict that has arrived counts, even if this process was suspended until after the timeout.
            biased;
            line = self.verdicts.next_line() => match line {
                Ok(Some(line)) => match serde_json::from_str::<Outcome>(&line) {
                    Ok(outcome) if outcome.seed == seed => Ok((line, outcome)),
                    _ => Err(Cause::Malformed(line)),
                },
                Ok(None) | Err(_) => Err(Cause::Ended),
            },
            () = sleep(limits.timeout) => Err(Cause::TimedOut(limits.timeout)),
            mib = exceeds_memory(pid, limits.memory_mib) => Err(Cause::OutOfMemory { mib, limit: limits.memory_mib }),
        }
    }

    /// Kills the process if need be, and returns the verdict on the seed during which it failed.
    async fn into_verdict(mut self, options: &Options, seed: u64, cause: Cause) -> io::Result<Verdict> {
        // The exit status of a process that has ended by itself has to be read before the process is killed.
        let status = match cause {
            Cause::Ended => tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await.ok().transpose()?,
            _ => None,
        };
        if status.is_none() {
            self.child.kill().await?;
        }
        let (conclusion, how) = match cause {
            Cause::TimedOut(timeout) => (Conclusion::Hung, format!("killed after {} s", timeout.as_secs_f64())),
            Cause::OutOfMemory { mib, limit } => {
                (Conclusion::OutOfMemory, format!("killed at {mib} MiB, above its limit of {limit} MiB"))
            }
            Cause::Ended => (Conclusion::Crashed, ended(status)),
            Cause::Malformed(line) => (Conclusion::Crashed, format!("printed a line that is not a verdict: {line}")),
        };
        let mut death = format!("{how}, at seed {} of the process", self.seeds_given);
        let stderr = self.stderr.await.unwrap_or_default();
        if !stderr.trim().is_empty() {
            death.push('\n');
            death.push_str(stderr.trim_end());
        }
        Ok(Verdict { engine: options.engine, ..Verdict::dead(options.scenario, seed, conclusion, death) })
    }
}

fn ended(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "closed its standard output".to_owned(), |status| status.to_string())
}

/// Reads standard error until it is closed. Returns the last [`STDERR_BYTES_MAX`] bytes.
async fn read_end(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    while let Ok(1..) = stderr.read_buf(&mut bytes).await {
        if bytes.len() > 2 * STDERR_BYTES_MAX {
            bytes.drain(..bytes.len() - STDERR_BYTES_MAX);
        }
    }
    bytes.drain(..bytes.len().saturating_sub(STDERR_BYTES_MAX));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until the process holds more than `limit` MiB of memory, and returns its memory in MiB. Waits for ever where the
/// memory of a process is not known.
async fn exceeds_memory(pid: Option<u32>, limit: u64) -> u64 {
    loop {
        sleep(MEMORY_INTERVAL).await;
        if let Some(mib) = pid.and_then(resident_mib).filter(|mib| *mib > limit) {
            return mib;
        }
    }
}

/// Returns the path of the program that this process runs. On Linux the path is valid even if the program's file has been
/// replaced since, as by a build during a soak.
pub(super) fn this_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// Waits for a signal that asks this process to stop, and returns the signal's number.
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

/// Waits for Ctrl-C, and returns the number of SIGINT.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = i32>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
        2
    })
}
