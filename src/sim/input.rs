//! Input into which faults inject lines: the places between two lines, and the reports of the injected lines to the judge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::deployment::{BROKER_PORT, SERVER_NAME};
use crate::transport::redis::resp::{Reply, ReplyDecoder};
use squall_judge::Observation;
use squall_protocol::{InstanceName, StreamName};

/// A line that was injected into the input of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InjectedLine {
    /// The instance that read it.
    pub instance: InstanceName,
    /// The apparent sender.
    pub target: InstanceName,
    /// The line.
    pub content: Content,
}

/// The content of a line that was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A line of an unknown stream, or a row of a known stream in an unknown shape.
    Unknown(StreamName),
    /// A position of this stream that no instance has announced.
    Forged(StreamName),
    /// A line that is odd and does no harm.
    Harmless(&'static str),
    /// A line for which an end closes the connection.
    Refused(&'static str),
}

impl From<InjectedLine> for Observation {
    fn from(InjectedLine { instance, target, content }: InjectedLine) -> Self {
        match content {
            Content::Unknown(stream) => Observation::UnknownRowRead { instance, target, stream },
            Content::Forged(stream) => Observation::ForgedPositionRead { instance, target, stream },
            Content::Harmless(line) => Observation::OddLineRead { instance, target, line, is_refused: false },
            Content::Refused(line) => Observation::OddLineRead { instance, target, line, is_refused: true },
        }
    }
}

/// A queue of injected lines that were not reported to the judge yet. It exists because connections are `Send` and the judge is
/// not.
#[derive(Debug, Clone, Default)]
pub(super) struct Injected(Arc<Mutex<Vec<InjectedLine>>>);

impl Injected {
    /// Takes the lines that were injected since the last call.
    pub(super) fn take(&self) -> Vec<InjectedLine> {
        std::mem::take(&mut *self.lock())
    }

    /// Adds a line.
    pub(super) fn push(&self, line: InjectedLine) {
        self.lock().push(line);
    }

    /// Locks the queue, also after a panic.
    fn lock(&self) -> MutexGuard<'_, Vec<InjectedLine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the input.
pub(super) enum Place {
    /// A place among lines. True if the last byte ended one.
    Lines(bool),
    /// A place among the replies of a broker.
    Replies(Replies),
}

impl Place {
    /// Returns the start of a connection to or on `port`.
    pub(super) fn start_of(port: u16) -> Self {
        if port == BROKER_PORT { Place::Replies(Replies::default()) } else { Place::Lines(true) }
    }

    /// Returns the bytes of a command that is injected here.
    pub(super) fn encode(&self, line: String) -> Bytes {
        match self {
            Place::Lines(_) => (line + "\n").into(),
            Place::Replies(_) => Reply::message(SERVER_NAME, line).to_bytes(),
        }
    }

    /// Returns true if a line may be injected here.
    pub(super) fn is_between(&self) -> bool {
        match self {
            Place::Lines(is_at_start) => *is_at_start,
            Place::Replies(replies) => replies.is_between(),
        }
    }

    /// Returns true if the next byte begins a line.
    pub(super) fn is_at_line_start(&self) -> bool {
        match self {
            Place::Lines(is_at_start) => *is_at_start,
            Place::Replies(replies) => replies.is_at_line_start(),
        }
    }

    /// Moves on by `bytes`, which were read.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        match self {
            Place::Lines(is_at_start) => *is_at_start = bytes.last().map_or(*is_at_start, |last| *last == b'\n'),
            Place::Replies(replies) => replies.read(bytes),
        }
    }
}

/// The boundaries of a broker's replies to a subscriber.
#[derive(Debug, Default)]
pub(super) struct Replies {
    decoder: ReplyDecoder,
    /// True once the broker has acknowledged the subscription. It publishes nothing before.
    is_subscribed: bool,
}

impl Replies {
    fn is_between(&self) -> bool {
        self.is_subscribed && self.decoder.pending().is_empty()
    }

    fn is_at_line_start(&self) -> bool {
        matches!(self.decoder.pending(), [] | [.., b'\n'])
    }

    fn read(&mut self, bytes: &[u8]) {
        self.decoder.extend(bytes);
        while let Some(reply) = self.decoder.next_reply() {
            self.is_subscribed |= matches!(reply, Reply::Array(_));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_between_the_messages_of_a_broker_come_after_the_subscription() {
        let message = |payload: &str| {
            String::from_utf8(Reply::message(SERVER_NAME, payload.to_owned()).to_bytes().to_vec()).unwrap()
        };
        let greeting = "+OK\r\n*3\r\n$9\r\nsubscribe\r\n$11\r\nsquall.test\r\n:1\r\n";
        let sent = format!("{greeting}{}{}", message("PING 1"), message("*2"));
        let mut replies = Replies::default();
        let places = sent.bytes().map(|byte| {
            replies.read(&[byte]);
            replies.is_between()
        });
        let between: Vec<usize> = places.zip(1..).filter_map(|(is_between, at)| is_between.then_some(at)).collect();
        assert_eq!(between, [greeting.len(), greeting.len() + message("PING 1").len(), sent.len()]);
    }
}
