//! The moment at which a connection is set up, inferred from observations.
//!
//! A connection is set up once its target has greeted, and every stream that the target writes has announced its position
//! on it and is caught up. A connection to a broker counts as set up once it has lasted for five seconds and was answered:
//! losing such a connection is no tight loop. The stack decides this for itself, and a wrong decision is the very defect to
//! be found (Synapse #4749), so the judge does not ask it. The inference may come early, for an instance that has more
//! work to do after its consumer has reached a position. It never comes later than a correct stack's own decision, so no
//! correct stack is held to a delay that it may reset.

use std::collections::BTreeMap;

use super::names::{Follower, Followers, Instance, Names, Source, Stream, Table};
use super::observation::{Observation, SimTime};
use super::topology::{PUBLICATIONS, SUBSCRIPTION};
use squall_protocol::{Delivery, Token};

/// An instance and the target that it connects to.
pub(super) type Pair = (Instance, Instance);

/// Time that a connection to a broker has to last. One millisecond is taken off for the rounding of times.
const SETTLED_AFTER_MS: u64 = 5_000 - 1;

/// Follows every connection until it is set up.
#[derive(Default)]
pub(super) struct SetUps {
    positions: Followers<Token>,
    /// The streams that each open connection still lacks, with the announced position if there was one.
    lacking: Table<Instance, Table<Instance, BTreeMap<Stream, Option<Token>>>>,
    pairs: BTreeMap<u64, Pair>,
    /// The time at which each connection to a broker was made, and true if it was answered since.
    at_broker: BTreeMap<u64, (SimTime, bool)>,
}

impl SetUps {
    /// Returns the position of a consumer, if it follows.
    pub(crate) fn position(&self, follower: Follower) -> Option<Token> {
        self.positions.get(follower).copied()
    }

    /// Returns the instance and target of an attempt, unless it has ended.
    pub(crate) fn pair(&self, attempt: u64) -> Option<Pair> {
        self.pairs.get(&attempt).copied()
    }

    /// Returns the pair whose connection is set up with this observation, which happened at `place`.
    pub(crate) fn observe(
        &mut self,
        at: SimTime,
        observation: &Observation,
        place: (Option<Instance>, Option<Source>),
        names: &mut Names,
    ) -> Option<Pair> {
        match observation {
            Observation::Started { .. } | Observation::Stopped { .. } => {
                let instance = place.0?;
                self.positions.forget(instance);
                self.lacking.remove(instance);
                self.pairs.retain(|_, (from, _)| *from != instance);
                self.at_broker.retain(|attempt, _| self.pairs.contains_key(attempt));
                None
            }
            Observation::Connecting { target, attempt, .. } => {
                self.pairs.insert(*attempt, (place.0?, names.instance(target)));
                None
            }
            Observation::Connected { attempt, .. } => {
                let (instance, target) = self.pair(*attempt)?;
                if [SUBSCRIPTION, PUBLICATIONS].contains(&names.name_of(target).as_str()) {
                    self.at_broker.insert(*attempt, (at, false));
                }
                let streams = names.written_by(target).map(|stream| (stream, None)).collect();
                self.lacking.or_default(instance).insert(target, streams);
                None
            }
            Observation::Greeted { attempt, .. } => {
                if let Some((_, is_answered)) = self.at_broker.get_mut(attempt) {
                    *is_answered = true;
                    return None;
                }
                let pair = self.pair(*attempt)?;
                self.lacking_of(pair)?.is_empty().then_some(pair)
            }
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => {
                let pair @ (instance, target) = self.pairs.remove(attempt)?;
                self.lacking.or_default(instance).remove(target);
                let (connected, is_answered) = self.at_broker.remove(attempt)?;
                (is_answered && at.ms_since(connected) >= SETTLED_AFTER_MS).then_some(pair)
            }
            Observation::Announced { attempt, position, .. } => {
                let source = place.1?;
                let pair = self.pair(*attempt).filter(|(_, target)| *target == names.writer_of(source))?;
                let announced = self.lacking_of(pair)?.get_mut(&names.stream_of(source))?;
                let position = *announced.get_or_insert(*position);
                let follower = Follower { source, instance: pair.0 };
                let held = self.position(follower).filter(|held| lasts(names, source) && *held >= position)?;
                self.reached(follower, held, names)
            }
            Observation::Following { position, .. } => {
                let follower = Follower { source: place.1?, instance: place.0? };
                self.positions.insert(follower, *position);
                if lasts(names, follower.source) { self.reached(follower, *position, names) } else { None }
            }
            Observation::Applied { token: position, .. }
            | Observation::Positioned { position, .. }
            | Observation::Reset { position, .. } => {
                let follower = Follower { source: place.1?, instance: place.0? };
                self.positions.insert(follower, *position);
                self.reached(follower, *position, names)
            }
            _ => None,
        }
    }

    fn lacking_of(&mut self, (instance, target): Pair) -> Option<&mut BTreeMap<Stream, Option<Token>>> {
        self.lacking.get_mut(instance)?.get_mut(target)
    }

    /// Removes a stream from those that the connection lacks, if its announced position is reached.
    fn reached(&mut self, Follower { source, instance }: Follower, position: Token, names: &Names) -> Option<Pair> {
        let pair = (instance, names.writer_of(source));
        let lacking = self.lacking_of(pair)?;
        let stream = names.stream_of(source);
        lacking.get(&stream).copied().flatten().filter(|announced| position >= *announced)?;
        lacking.remove(&stream);
        lacking.is_empty().then_some(pair)
    }
}

/// Returns true if a position held before an announcement still counts. In memory it may be of an earlier run of the writer.
fn lasts(names: &Names, source: Source) -> bool {
    names.delivery_of(source).is_some_and(|delivery| delivery != Delivery::Memory)
}
