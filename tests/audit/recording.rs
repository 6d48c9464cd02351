//! The recordings, and the faults of the processes while they were recorded.
//!
//! `redis_traffic.jsonl.gz` holds every payload that six processes of unmodified Synapse 1.163.2 published on Redis in 9 minutes:
//! a main process, two event persisters, a worker that serves clients (`generic1`), a writer of all other streams
//! (`writer1`) and a federation sender. `redis_traffic_faults.txt` lists when each of them was killed and started.
//!
//! `tcp_1.19.1.txt.gz` holds every line that a main process of Synapse 1.19.1 sent to one connection.

use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::GzDecoder;
use squall_judge::audit::Capture;
use squall_judge::audit::capture::Recorded;

pub(crate) const REDIS: &str = "tests/data/redis_traffic.jsonl.gz";
pub(crate) const ROWS_LOST: &str = "tests/data/live/rows_lost_after_reconnect.jsonl.gz";
pub(crate) const OLDER_VERSION: &str = "tests/data/live/rolling_upgrade.jsonl.gz";
pub(crate) const UNKNOWN_STREAM: &str = "tests/data/live/unknown_stream_storm.jsonl.gz";
pub(crate) const TCP: &str = "tests/data/tcp_1.19.1.txt.gz";
const FAULTS: &str = include_str!("../data/redis_traffic_faults.txt");

pub(crate) fn capture(path: &str) -> Capture {
    Capture::open(Path::new(path)).expect(path)
}

/// Returns every payload that was published on Redis.
pub(crate) fn redis() -> Vec<Recorded> {
    capture(REDIS).map(|recorded| recorded.expect("every line is a payload")).collect()
}

/// A fault of a process, in milliseconds since the first payload.
pub(crate) struct Fault {
    pub at_ms: u64,
    pub what: &'static str,
}

/// Returns the faults of the processes, in order.
pub(crate) fn faults() -> Vec<Fault> {
    let packed = std::fs::File::open(REDIS).unwrap();
    let first = BufReader::new(GzDecoder::new(packed)).lines().next().unwrap().unwrap();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    let began = first["t"].as_f64().unwrap();
    let fault = |line: &'static str| {
        let (at, what) = line.split_once(' ').unwrap();
        Fault { at_ms: ((at.parse::<f64>().unwrap() - began) * 1_000.0) as u64, what }
    };
    FAULTS.lines().map(fault).collect()
}
