//! Bounds on the memory of an audit.
//!
//! A client of the broker may publish anything, for years, and a recording may hold anything. The [rules](super::rules)
//! bound their memory for each stream, writer and process. This file bounds the number of streams and writers, and the
//! length of names. In total an audit needs less than 200 MB for the most hostile traffic, and a few MB for a healthy
//! deployment. Where a bound leaves something unjudged, the audit says so: by a finding, or by [`Exceeded`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use thiserror::Error;

use squall_protocol::{Command, InstanceName, StreamName};

/// Length of the longest payload that is parsed, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Number of streams that are followed. Synapse has about thirty.
pub const STREAMS_MAX: usize = 100;

/// Number of writers that are followed, over all streams.
pub const WRITERS_MAX: usize = 2_000;

/// Length of the longest name of a stream, an instance or a process that is remembered, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// Length of the longest id of a user, a device, a room or an event that is remembered, in bytes. Most have at most 255.
pub const ID_BYTES_MAX: usize = 512;

/// Number of names that a finding lists. The rest is left out.
pub(super) const NAMES_LISTED_MAX: usize = 20;

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
    /// The length of an id.
    #[error("an id in it has {0} bytes, more than {ID_BYTES_MAX}")]
    Id(usize),
}

/// A bound on what a rule remembers, which the traffic exceeded: not all of it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exceeded {
    /// The name of the rule.
    pub rule: &'static str,
    /// The bound.
    #[serde(flatten)]
    pub bound: Bound,
}

/// A bound on what a rule remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// The things that are remembered, in the plural.
    pub things: &'static str,
    /// The greatest number of them.
    pub max: usize,
    /// Number of things beyond it, which were not judged.
    pub unjudged: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exceeded { rule, bound: Bound { things, max, unjudged } } = self;
        write!(f, "{rule}: more than {max} {things}, of which {unjudged} were not judged")
    }
}

/// The streams and writers that are followed.
#[derive(Debug, Default)]
pub struct Bounds {
    writers: BTreeMap<StreamName, BTreeSet<InstanceName>>,
    count: usize,
}

impl Bounds {
    /// Admits the names in a command, or returns the bound that they exceed. An admitted name stays admitted. Equal names
    /// share their memory from now on.
    pub fn admit(&mut self, command: &mut Command) -> Result<(), Excess> {
        match command {
            Command::Rdata(rdata) => self.admit_writer(&mut rdata.stream, &mut rdata.writer),
            Command::Position(position) => self.admit_writer(&mut position.stream, &mut position.writer),
            // It may write nothing, but its name is remembered, too.
            Command::FederationAck(ack) => self.admit_writer(&mut StreamName::from("federation"), &mut ack.instance),
            Command::UserSync(sync) => {
                check_name(&sync.instance_id)?;
                check_id(&sync.user_id)?;
                sync.device_id.as_ref().map_or(Ok(()), |device_id| check_id(device_id))
            }
            Command::ClearUserSync(instance_id) => check_name(instance_id),
            _ => Ok(()),
        }
    }

    /// Admits a writer of a stream, or returns the bound that it exceeds.
    pub(super) fn admit_writer(&mut self, stream: &mut StreamName, writer: &mut InstanceName) -> Result<(), Excess> {
        if let Some((known, writers)) = self.writers.get_key_value(stream) {
            *stream = known.clone();
            if let Some(known) = writers.get(writer) {
                *writer = known.clone();
                return Ok(());
            }
        } else {
            check_name(stream.as_str())?;
        }
        check_name(writer.as_str())?;
        if self.count >= WRITERS_MAX {
            return Err(Excess::Writers);
        }
        if self.writers.len() >= STREAMS_MAX && !self.writers.contains_key(stream) {
            return Err(Excess::Streams);
        }
        self.writers.entry(stream.clone()).or_default().insert(writer.clone());
        self.count += 1;
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Excess> {
    if name.len() > NAME_BYTES_MAX { Err(Excess::Name(name.len())) } else { Ok(()) }
}

fn check_id(id: &str) -> Result<(), Excess> {
    if id.len() > ID_BYTES_MAX { Err(Excess::Id(id.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(bounds: &mut Bounds, text: &str) -> Result<(), Excess> {
        bounds.admit(&mut Command::parse(text).unwrap())
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
    fn equal_names_share_their_memory() {
        let mut bounds = Bounds::default();
        let mut admitted = || {
            let mut command = Command::parse("POSITION s a 1 1").unwrap();
            bounds.admit(&mut command).unwrap();
            let Command::Position(position) = command else { panic!() };
            (position.stream, position.writer)
        };
        let (one, other) = (admitted(), admitted());
        let pointers = |names: &(StreamName, InstanceName)| (names.0.as_str().as_ptr(), names.1.as_str().as_ptr());
        assert_eq!(pointers(&one), pointers(&other));
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let name = "n".repeat(NAME_BYTES_MAX + 1);
        let mut bounds = Bounds::default();
        for text in [
            format!("POSITION {name} a 1 1"),
            format!("POSITION s {name} 1 1"),
            format!("USER_SYNC {name} @u:h D start 0"),
            format!("CLEAR_USER_SYNC {name}"),
        ] {
            assert_eq!(admit(&mut bounds, &text), Err(Excess::Name(NAME_BYTES_MAX + 1)), "{text}");
        }
        let id = "n".repeat(ID_BYTES_MAX + 1);
        for text in [format!("USER_SYNC i {id} D start 0"), format!("USER_SYNC i @u:h {id} start 0")] {
            assert_eq!(admit(&mut bounds, &text), Err(Excess::Id(ID_BYTES_MAX + 1)), "{text}");
        }
        assert_eq!(bounds.count, 0);
    }
}
