//! How much of what is heard is remembered.
//!
//! Whoever may publish may publish anything, for years. What the [rules](super::rules) remember is bounded for each stream,
//! writer and process; this bounds how many of them there are, and how long their names. All in all that is less than
//! 300 MB, however hostile the traffic, and a few for that of a healthy deployment.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::protocol::{Command, InstanceName, StreamName};

/// How many bytes of a payload are looked into.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// How many streams are followed. Synapse has about thirty.
pub const STREAMS_MAX: usize = 100;

/// How many writers are followed, over all streams.
pub const WRITERS_MAX: usize = 2_000;

/// How long a name may be, in bytes. Those of users are at most 255.
pub const NAME_BYTES_MAX: usize = 512;

/// How much later than it was said something may be heard, in milliseconds, before it is known to be late: nothing is
/// concluded from a silence that such a delay explains, and what is later still counts as not heard.
pub const HEARD_LATE_MS: u64 = 5_000;

/// More than is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Excess {
    /// Another stream.
    #[error("one more stream than {STREAMS_MAX}")]
    Streams,
    /// Another writer.
    #[error("one more writer than {WRITERS_MAX}")]
    Writers,
    /// A name.
    #[error("a name of {0} bytes, where {NAME_BYTES_MAX} are the most")]
    Name(usize),
}

/// Who is followed.
#[derive(Debug, Default)]
pub struct Bounds {
    writers: BTreeMap<StreamName, BTreeSet<InstanceName>>,
    count: usize,
}

impl Bounds {
    /// Whether what is said can be followed. Who was followed once is followed for ever.
    pub fn admit(&mut self, said: &Command) -> Result<(), Excess> {
        match said {
            Command::Rdata(rdata) => self.writer(&rdata.stream, &rdata.writer),
            Command::Position(position) => self.writer(&position.stream, &position.writer),
            // It need not write, but is one more whose name is remembered.
            Command::FederationAck(ack) => self.writer(&StreamName::from("federation"), &ack.instance),
            Command::UserSync(sync) => [Some(&sync.instance_id), Some(&sync.user_id), sync.device_id.as_ref()]
                .into_iter()
                .flatten()
                .try_for_each(|name| short(name)),
            _ => Ok(()),
        }
    }

    fn writer(&mut self, stream: &StreamName, writer: &InstanceName) -> Result<(), Excess> {
        let known = self.writers.get(stream);
        if known.is_some_and(|writers| writers.contains(writer)) {
            return Ok(());
        }
        short(stream.as_str())?;
        short(writer.as_str())?;
        if self.count >= WRITERS_MAX {
            return Err(Excess::Writers);
        }
        if known.is_none() && self.writers.len() >= STREAMS_MAX {
            return Err(Excess::Streams);
        }
        self.writers.entry(stream.clone()).or_default().insert(writer.clone());
        self.count += 1;
        Ok(())
    }
}

fn short(name: &str) -> Result<(), Excess> {
    if name.len() > NAME_BYTES_MAX { Err(Excess::Name(name.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(bounds: &mut Bounds, text: &str) -> Result<(), Excess> {
        bounds.admit(&Command::parse(text).unwrap())
    }

    #[test]
    fn one_more_stream_than_are_followed_keeps_nobody_else_from_being_followed() {
        let mut bounds = Bounds::default();
        for stream in 0..STREAMS_MAX {
            assert_eq!(admit(&mut bounds, &format!("POSITION s{stream} a 1 1")), Ok(()));
        }
        assert_eq!(admit(&mut bounds, "POSITION other a 1 1"), Err(Excess::Streams));
        assert_eq!(admit(&mut bounds, "POSITION s5 a 2 2"), Ok(()));
        assert_eq!(admit(&mut bounds, "POSITION s5 b 2 2"), Ok(()));
    }

    #[test]
    fn one_more_writer_than_are_followed_is_not() {
        let mut bounds = Bounds::default();
        for writer in 0..WRITERS_MAX {
            assert_eq!(admit(&mut bounds, &format!("FEDERATION_ACK w{writer} 1")), Ok(()));
        }
        assert_eq!(admit(&mut bounds, r#"RDATA caches a 7 ["x"]"#), Err(Excess::Writers));
        assert_eq!(admit(&mut bounds, "FEDERATION_ACK w7 2"), Ok(()));
    }

    #[test]
    fn a_name_that_is_too_long_is_not_remembered() {
        let name = "n".repeat(NAME_BYTES_MAX + 1);
        let mut bounds = Bounds::default();
        for text in [
            format!("POSITION {name} a 1 1"),
            format!("POSITION s {name} 1 1"),
            format!("USER_SYNC {name} @u:h D start 0"),
            format!("USER_SYNC i {name} D start 0"),
            format!("USER_SYNC i @u:h {name} start 0"),
        ] {
            assert_eq!(admit(&mut bounds, &text), Err(Excess::Name(NAME_BYTES_MAX + 1)), "{text}");
        }
        assert_eq!(bounds.count, 0);
    }
}
