//! The state that the invariants share: the numbers of what an observation is about, the disturbances and the connections.

use super::disturbances::Disturbances;
use super::due::stream_of;
use super::names::{Follower, Instance, Names, Source, Stream};
use super::observation::{Line, Observation, SimTime};
use super::set_up::{Pair, SetUps};
use super::topology::Topology;
use squall_protocol::{Delivery, InstanceName, Token};

/// The deployment when something is observed.
///
/// The disturbances are those before the observation; everything else has taken it into account.
pub struct Scene {
    pub(crate) names: Names,
    pub(crate) disturbances: Disturbances,
    set_ups: SetUps,
    instance: Option<Instance>,
    stream: Option<Stream>,
    source: Option<Source>,
    held: Option<Token>,
    set_up: Option<Pair>,
    pair: Option<Pair>,
}

impl Scene {
    /// Returns the scene of a deployment before the first observation.
    pub(crate) fn new(topology: &Topology) -> Self {
        let mut names = Names::new(topology);
        Scene {
            disturbances: Disturbances::new(topology, &mut names),
            set_ups: SetUps::default(),
            names,
            instance: None,
            stream: None,
            source: None,
            held: None,
            set_up: None,
            pair: None,
        }
    }

    /// Takes an observation into account that the invariants are about to be given.
    pub(crate) fn begin(&mut self, at: SimTime, observation: &Observation) {
        self.instance = instance_of(observation).map(|instance| self.names.instance(instance));
        self.source = source_of(observation).map(|(stream, writer)| self.names.source(stream, writer));
        self.stream = match (self.source, observation) {
            (Some(source), _) => Some(self.names.stream_of(source)),
            (
                None,
                Observation::StreamBroken { stream }
                | Observation::Fetched { stream, .. }
                | Observation::UnknownRowRead { stream, .. }
                | Observation::ForgedPositionRead { stream, .. },
            ) => Some(self.names.stream(stream.as_str())),
            _ => None,
        };
        self.held = self
            .source
            .zip(self.instance)
            .and_then(|(source, instance)| self.set_ups.position(Follower { source, instance }));
        self.pair = match observation {
            Observation::Connecting { target, .. } => {
                self.instance.map(|instance| (instance, self.names.instance(target)))
            }
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => self.set_ups.pair(*attempt),
            _ => None,
        };
        self.set_up = self.set_ups.observe(at, observation, (self.instance, self.source), &mut self.names);
    }

    /// Takes an observation into account that the invariants have been given.
    pub(crate) fn end(&mut self, at: SimTime, observation: &Observation) {
        self.disturbances.observe(at, observation, &mut self.names);
    }

    /// Returns the instance at which it happened.
    ///
    /// # Panics
    /// If the observation has no instance.
    pub(crate) fn instance(&self) -> Instance {
        self.instance.expect("the observation has an instance")
    }

    /// Returns the rows that the observation is about.
    ///
    /// # Panics
    /// If it is about no rows.
    pub(crate) fn source(&self) -> Source {
        self.source.expect("the observation is about rows")
    }

    /// Returns the stream that the observation is about.
    ///
    /// # Panics
    /// If it is about no stream.
    pub(crate) fn stream(&self) -> Stream {
        self.stream.expect("the observation is about a stream")
    }

    /// Returns the follower at which it happened.
    ///
    /// # Panics
    /// If the observation has no instance, or is about no rows.
    pub(crate) fn follower(&self) -> Follower {
        Follower { source: self.source(), instance: self.instance() }
    }

    /// Returns true if the rows are in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.names.delivery_of(self.source()) == Some(Delivery::Memory)
    }

    /// Returns true if the rows are in the database.
    pub(crate) fn is_in_database(&self) -> bool {
        self.names.delivery_of(self.source()).is_some_and(|delivery| delivery != Delivery::Memory)
    }

    /// Returns the position that the follower had before the observation; none if it did not follow.
    pub(crate) fn held(&self) -> Option<Token> {
        self.held
    }

    /// Returns the position of a follower; none if it does not follow.
    pub(crate) fn position(&self, follower: Follower) -> Option<Token> {
        self.set_ups.position(follower)
    }

    /// Returns the instance and target whose connection is set up with the observation.
    pub(crate) fn set_up(&self) -> Option<Pair> {
        self.set_up
    }

    /// Returns the instance and target of the attempt that has begun or ended with the observation.
    pub(crate) fn pair(&self) -> Option<Pair> {
        self.pair
    }

    /// Returns the time since which the path between two instances is sound; none if it is not sound at `at`.
    pub(crate) fn sound_since(&self, at: SimTime, one: Instance, other: Instance) -> Option<SimTime> {
        self.disturbances.sound_since(at, one, other)
    }
}

/// Returns the instance of an observation of rows, lines or processes.
fn instance_of(observation: &Observation) -> Option<&InstanceName> {
    match observation {
        Observation::Started { instance, .. }
        | Observation::AskedToStop { instance, .. }
        | Observation::Stopped { instance, .. }
        | Observation::Frozen { instance }
        | Observation::Thawed { instance }
        | Observation::LimitHit { instance, .. }
        | Observation::Fetched { instance, .. }
        | Observation::Following { instance, .. }
        | Observation::Applied { instance, .. }
        | Observation::Positioned { instance, .. }
        | Observation::Reset { instance, .. }
        | Observation::WaitTimedOut { instance, .. }
        | Observation::WriteAcked { instance, .. }
        | Observation::ReadStarted { instance, .. }
        | Observation::SyncAsked { instance, .. }
        | Observation::SyncBegan { instance, .. }
        | Observation::SyncEnded { instance, .. }
        | Observation::Connecting { instance, .. }
        | Observation::Announced { instance, .. }
        | Observation::Wrote { instance, .. }
        | Observation::UnknownRowRead { instance, .. }
        | Observation::ForgedPositionRead { instance, .. } => Some(instance),
        // The writer is where it happened.
        Observation::Committed { writer, .. }
        | Observation::Removed { writer, .. }
        | Observation::Changed { writer, .. } => Some(writer),
        _ => None,
    }
}

/// Returns the stream and writer of an observation that is about rows.
fn source_of(observation: &Observation) -> Option<(&str, &InstanceName)> {
    match observation {
        Observation::Committed { stream, writer, .. }
        | Observation::Removed { stream, writer, .. }
        | Observation::Changed { stream, writer, .. }
        | Observation::Following { stream, writer, .. }
        | Observation::Applied { stream, writer, .. }
        | Observation::Positioned { stream, writer, .. }
        | Observation::Reset { stream, writer, .. }
        | Observation::WaitTimedOut { stream, writer, .. }
        | Observation::Announced { stream, writer, .. }
        | Observation::Wrote {
            line: Line::Rdata { stream, writer, .. } | Line::Position { stream, writer, .. }, ..
        } => Some((stream.as_str(), writer)),
        Observation::WriteAcked { what, writer, .. } => Some((stream_of(what), writer)),
        _ => None,
    }
}
