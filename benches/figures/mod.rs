//! Prints measurements as rates at the end. divan prints times only, and does not return them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use divan::Bencher;
use divan::counter::ItemsCount;

/// The allocator of the program `squall`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rates by name, in items a second.
static RATES: Mutex<BTreeMap<String, f64>> = Mutex::new(BTreeMap::new());
/// Rates in words, in the order of the measurements.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs the benchmarks, and prints the rates at the end.
pub(crate) fn main() {
    divan::main();
    for line in LINES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("{line}");
    }
}

/// Samples `work`, which processes `items` items. Keeps the median rate under `name`, in items a second; `describe`
/// returns it in words.
pub(crate) fn measure(bencher: Bencher, name: &str, items: u64, describe: impl Fn(f64) -> String, work: impl Fn()) {
    let mut took = Vec::new();
    bencher.counter(ItemsCount::new(items)).bench_local(|| {
        let began = now();
        work();
        took.push(began.elapsed());
    });
    took.sort();
    if let Some(median) = took.get(took.len() / 2) {
        let rate = items as f64 / median.as_secs_f64();
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(describe(rate));
        RATES.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), rate);
    }
}

/// Returns the rate kept under `name`, if that was measured.
#[allow(dead_code, reason = "not every benchmark compares rates")]
pub(crate) fn rate(name: &str) -> Option<f64> {
    RATES.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
