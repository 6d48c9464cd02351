//! What is measured, once more in words: divan keeps its measurements to itself, and a rate says more than a time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use divan::Bencher;
use divan::counter::ItemsCount;

/// Rates by name, in things a second.
static RATES: Mutex<BTreeMap<String, f64>> = Mutex::new(BTreeMap::new());
/// The same in words, as they came.
static WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs the benchmarks, and says at the end what was measured.
pub fn main() {
    divan::main();
    for words in WORDS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("{words}");
    }
}

/// Samples `work`, which does `items` things, and keeps the median rate, in things a second, under `name`; `tell` says
/// what it means.
pub fn measure(bencher: Bencher, name: &str, items: u64, tell: impl Fn(f64) -> String, work: impl Fn()) {
    let mut took = Vec::new();
    bencher.counter(ItemsCount::new(items)).bench_local(|| {
        let began = now();
        work();
        took.push(began.elapsed());
    });
    took.sort();
    if let Some(median) = took.get(took.len() / 2) {
        let rate = items as f64 / median.as_secs_f64();
        WORDS.lock().unwrap_or_else(PoisonError::into_inner).push(tell(rate));
        RATES.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), rate);
    }
}

/// The rate kept under `name`, if that was measured.
#[allow(dead_code, reason = "not every benchmark compares")]
pub fn rate(name: &str) -> Option<f64> {
    RATES.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
}

#[expect(clippy::disallowed_methods, reason = "real time is what a benchmark is about")]
fn now() -> Instant {
    Instant::now()
}
