//! The state of each writer, for the live table and the metrics.

use super::follower::{FindingsOfOrigin, Follower};
use squall_judge::audit::{Origin, OriginTally};
use squall_judge::observation::SimTime;

/// The state of one writer of one stream.
#[derive(Debug)]
pub struct WriterState<'a> {
    /// The stream and the writer.
    pub origin: Origin,
    /// The counts of its payloads.
    pub counts: &'a OriginTally,
    /// Number of tokens by which it is behind the first writer of its stream. None if it has no token yet.
    pub behind: Option<u64>,
    /// Time since its last row or position, in milliseconds.
    pub silent_ms: Option<u64>,
    /// Time from the date in its last row to the arrival, in milliseconds, by the clocks of both machines.
    pub late_ms: Option<u64>,
    /// The findings about it.
    pub found: FindingsOfOrigin,
}

impl Follower {
    /// Returns the state of each writer of each stream, as of `now`. The writers of a stream follow one another.
    pub fn writers(&self, now: SimTime) -> impl Iterator<Item = WriterState<'_>> {
        self.tally().streams.iter().flat_map(move |(stream, writers)| {
            let first = writers.values().filter_map(|counts| counts.last_token).max();
            writers.iter().map(move |(writer, counts)| {
                let origin = Origin { stream: stream.clone(), writer: writer.clone() };
                let found = self.found_of(&origin);
                let behind = first.zip(counts.last_token).map(|(first, token)| first.0.abs_diff(token.0));
                let silent_ms = counts.last_at.map(|last_at| now.ms_since(last_at));
                let late_ms = counts.last_dated.map(|row| self.late_ms(row));
                WriterState { origin, counts, behind, silent_ms, late_ms, found }
            })
        })
    }
}
