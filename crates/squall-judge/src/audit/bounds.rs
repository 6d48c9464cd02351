//! Bounds on the memory of an audit.
//!
//! A client of the broker may publish anything, for years. The [rules](super::rules) bound their memory for each stream,
//! writer and process. This file bounds the number of streams and writers, and the length of names. In total an audit
//! needs less than 300 MB for the most hostile traffic, and a few MB for a healthy deployment.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use squall_protocol::{Command, InstanceName, StreamName};

/// Length of the longest payload that is parsed, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Number of streams that are followed. Synapse has about thirty.
pub const STREAMS_MAX: usize = 100;

/// Number of writers that are followed, over all streams.
pub const WRITERS_MAX: usize = 2_000;

/// Length of the longest name that is remembered, in bytes. Names of users have at most 255.
pub const NAME_BYTES_MAX: usize = 512;

/// Greatest delay between sending and receiving a payload, in milliseconds.
///
/// No rule draws a conclusion from a silence that such a delay explains. A payload that may be later than this counts as
/// missed.
pub const DELAY_MS_MAX: u64 = 5_000;

/// A bound that a payload exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Excess {
    /// The number of streams.
    #[error("it would be one more than the {STREAMS_MAX} streams that are followed")]
    Streams,
    /// The number of writers.
    #[error("it would be one more than the {WRITERS_MAX} writers that are followed")]
    Writers,
    /// The length of a name.
    #[error("a name in it has {0} bytes, more than {NAME_BYTES_MAX}")]
    Name(usize),
}

/// The streams and writers that are followed.
#[derive(Debug, Default)]
pub struct Bounds {
    writers: BTreeMap<StreamName, BTreeSet<InstanceName>>,
    count: usize,
}

impl Bounds {
    /// Admits the names in a command, or returns the bound that they exceed. An admitted name stays admitted.
    pub fn admit(&mut self, command: &Command) -> Result<(), Excess> {
        match command {
            Command::Rdata(rdata) => self.admit_writer(&rdata.stream, &rdata.writer),
            Command::Position(position) => self.admit_writer(&position.stream, &position.writer),
            // It may write nothing, but its name is remembered, too.
            Command::FederationAck(ack) => self.admit_writer(&StreamName::from("federation"), &ack.instance),
            Command::UserSync(sync) => {
                check_length(&sync.instance_id)?;
                check_length(&sync.user_id)?;
                sync.device_id.as_ref().map_or(Ok(()), |device_id| check_length(device_id))
            }
            _ => Ok(()),
        }
    }

    /// Admits a writer of a stream, or returns the bound that it exceeds.
    pub(super) fn admit_writer(&mut self, stream: &StreamName, writer: &InstanceName) -> Result<(), Excess> {
        let known = self.writers.get(stream);
        if known.is_some_and(|writers| writers.contains(writer)) {
            return Ok(());
        }
        check_length(stream.as_str())?;
        check_length(writer.as_str())?;
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

fn check_length(name: &str) -> Result<(), Excess> {
    if name.len() > NAME_BYTES_MAX { Err(Excess::Name(name.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(bounds: &mut Bounds, text: &str) -> Result<(), Excess> {
        bounds.admit(&Command::parse(text).unwrap())
    }

    #[test]
    fn streams_beyond_the_bound_are_refused_and_the_others_still_followed() {
        let mut bounds = Bounds::default();
        for stream in 0..STREAMS_MAX {
            assert_eq!(admit(&mut bounds, &format!("POSITION s{stream} a 1 1")), Ok(()));
        }
        assert_eq!(admit(&mut bounds, "POSITION other a 1 1"), Err(Excess::Streams));
        assert_eq!(admit(&mut bounds, "POSITION s5 a 2 2"), Ok(()));
        assert_eq!(admit(&mut bounds, "POSITION s5 b 2 2"), Ok(()));
    }

    #[test]
    fn writers_beyond_the_bound_are_refused_and_the_others_still_followed() {
        let mut bounds = Bounds::default();
        for writer in 0..WRITERS_MAX {
            assert_eq!(admit(&mut bounds, &format!("FEDERATION_ACK w{writer} 1")), Ok(()));
        }
        assert_eq!(admit(&mut bounds, r#"RDATA caches a 7 ["x"]"#), Err(Excess::Writers));
        assert_eq!(admit(&mut bounds, "FEDERATION_ACK w7 2"), Ok(()));
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
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
