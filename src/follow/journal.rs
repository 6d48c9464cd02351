//! The lines of a recording.

use std::io::{self, Write};

use tokio::time::Instant;

use squall_env::Clock;
use squall_judge::audit::{Entry, Recorded};
use squall_judge::observation::SimTime;

/// Numbers the lines of a recording, and writes them if there is a file.
pub struct Journal {
    /// The beginning by the wall clock, in milliseconds since the Unix epoch. Later times are counted from here by the
    /// monotonic clock, which cannot be set.
    began_ms: u64,
    began: Instant,
    line: u64,
    recording: Option<Box<dyn Write>>,
}

impl Journal {
    /// Returns a journal that begins now.
    pub fn new(clock: &dyn Clock, recording: Option<Box<dyn Write>>) -> Self {
        Journal { began_ms: clock.now_ms(), began: Instant::now(), line: 0, recording }
    }

    /// Returns the time since the beginning.
    pub fn now(&self) -> SimTime {
        self.at(Instant::now())
    }

    /// Converts an instant to the time since the beginning.
    pub fn at(&self, instant: Instant) -> SimTime {
        SimTime(instant.saturating_duration_since(self.began).as_millis() as u64)
    }

    /// Converts a time to milliseconds since the Unix epoch.
    pub fn ms(&self, at: SimTime) -> u64 {
        self.began_ms + at.0
    }

    /// Converts a time to seconds since the Unix epoch.
    pub fn seconds(&self, at: SimTime) -> f64 {
        self.ms(at) as f64 / 1_000.0
    }

    /// Returns the next line, which is not kept yet.
    pub fn line(&self, at: SimTime, entry: Entry) -> Recorded {
        Recorded { line: self.line + 1, at: Some(at), entry }
    }

    /// Keeps a line that [`line`](Self::line) returned.
    ///
    /// # Errors
    /// The line cannot be written. The recording ends.
    pub fn keep(&mut self, recorded: &Recorded) -> io::Result<()> {
        self.line = recorded.line;
        self.write(|recording, began_ms| writeln!(recording, "{}", recorded.to_line(began_ms)))
    }

    /// Flushes every kept line to the file.
    ///
    /// # Errors
    /// The file cannot be written. The recording ends.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write(|recording, _| recording.flush())
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Write, u64) -> io::Result<()>) -> io::Result<()> {
        let Some(recording) = &mut self.recording else { return Ok(()) };
        let written = write(recording, self.began_ms);
        if written.is_err() {
            self.recording = None;
        }
        written
    }
}
