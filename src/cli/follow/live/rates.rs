//! Rates: counts of the last seconds.

use std::collections::{BTreeMap, VecDeque};

use squall_judge::audit::{Origin, Tally};
use squall_judge::observation::SimTime;

/// Time over which rows are counted, in milliseconds.
const ROWS_MS: u64 = 10_000;

/// Time over which REPLICATEs are counted, in milliseconds.
const REPLICATES_MS: u64 = 60_000;

/// Counts at one time.
#[derive(Debug, Default)]
struct Sample {
    at: SimTime,
    rows: BTreeMap<Origin, u64>,
    replicates: u64,
}

/// Counts of the last minute.
#[derive(Debug, Default)]
pub(super) struct Rates {
    samples: VecDeque<Sample>,
}

impl Rates {
    /// Takes the counts of now. Called about once a second.
    pub(super) fn sample(&mut self, now: SimTime, tally: &Tally) {
        let mut rows = BTreeMap::new();
        for (stream, writers) in &tally.streams {
            for (writer, counts) in writers {
                rows.insert(Origin { stream: stream.clone(), writer: writer.clone() }, counts.rows);
            }
        }
        let replicates = tally.commands.get("REPLICATE").copied().unwrap_or_default();
        self.samples.push_back(Sample { at: now, rows, replicates });
        // One sample is older, so that the whole time is counted.
        while self.samples.get(1).is_some_and(|second| now.ms_since(second.at) >= REPLICATES_MS) {
            self.samples.pop_front();
        }
    }

    /// Returns the number of rows a second that a writer sent.
    pub(super) fn rows_per_second(&self, origin: &Origin) -> f64 {
        let Some((first, last)) = self.since(ROWS_MS) else { return 0.0 };
        let rows = |sample: &Sample| sample.rows.get(origin).copied().unwrap_or_default();
        (rows(last) - rows(first)) as f64 * 1_000.0 / last.at.ms_since(first.at) as f64
    }

    /// Returns the number of REPLICATEs of the last minute.
    pub(super) fn replicates_per_minute(&self) -> u64 {
        self.since(REPLICATES_MS).map_or(0, |(first, last)| last.replicates - first.replicates)
    }

    /// Returns the sample from `ms` before the last one, and the last one.
    fn since(&self, ms: u64) -> Option<(&Sample, &Sample)> {
        let last = self.samples.back()?;
        let is_old = |sample: &&Sample| last.at.ms_since(sample.at) >= ms;
        let first = self.samples.iter().rev().find(is_old).or(self.samples.front())?;
        (first.at < last.at).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_judge::audit::OriginTally;

    fn tally(rows: u64, replicates: u64) -> Tally {
        let counts = OriginTally { rows, ..OriginTally::default() };
        let mut tally = Tally::default();
        tally.streams.insert("events".into(), BTreeMap::from([("a".into(), counts)]));
        tally.commands.insert("REPLICATE", replicates);
        tally
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let origin = Origin { stream: "events".into(), writer: "a".into() };
        let mut rates = Rates::default();
        rates.sample(SimTime(0), &tally(100, 7));
        assert_eq!((rates.rows_per_second(&origin), rates.replicates_per_minute()), (0.0, 0), "before that is unknown");
        for second in 1..=100 {
            let rows = if second <= 80 { 100 } else { 100 + 5 * (second - 80) };
            rates.sample(SimTime(second * 1_000), &tally(rows, 7 + second / 10));
        }
        assert_eq!((rates.rows_per_second(&origin), rates.replicates_per_minute()), (5.0, 6));
        assert_eq!(rates.samples.len(), 61);
        assert_eq!(rates.rows_per_second(&Origin { stream: "events".into(), writer: "b".into() }), 0.0);
    }
}
