//! What was heard, as the lines of a recording.

use std::io::{self, Write};

use tokio::time::Instant;

use crate::env::Clock;
use crate::judge::audit::{Entry, Recorded};
use crate::judge::observation::Moment;

/// Numbers what was heard, and writes it down if there is something to write to.
pub struct Journal {
    /// When it began: milliseconds since the Unix epoch, by the wall clock. From there on time is counted by the
    /// monotonic one, which nobody sets.
    began_ms: u64,
    began: Instant,
    line: u64,
    recording: Option<Box<dyn Write>>,
}

impl Journal {
    /// A journal that begins now.
    pub fn new(clock: &dyn Clock, recording: Option<Box<dyn Write>>) -> Self {
        Journal { began_ms: clock.now_ms(), began: Instant::now(), line: 0, recording }
    }

    /// How long it has been since the beginning.
    pub fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    /// How long after the beginning that was.
    pub fn at(&self, instant: Instant) -> Moment {
        Moment(instant.saturating_duration_since(self.began).as_millis() as u64)
    }

    /// Seconds since the Unix epoch.
    pub fn seconds(&self, at: Moment) -> f64 {
        (self.began_ms + at.0) as f64 / 1_000.0
    }

    /// The next line.
    pub fn line(&self, at: Moment, entry: Entry) -> Recorded {
        Recorded { line: self.line + 1, at: Some(at), entry }
    }

    /// Keeps a line that [`line`](Self::line) made. What cannot be written ends the recording.
    pub fn keep(&mut self, recorded: &Recorded) -> io::Result<()> {
        self.line = recorded.line;
        self.write(|recording, began_ms| writeln!(recording, "{}", recorded.to_line(began_ms)))
    }

    /// Whatever was kept is in the file from now on.
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
