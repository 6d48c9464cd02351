//! When a connection is set up, inferred from what witnesses saw.
//!
//! A connection is set up once its target has greeted and every stream that it writes has announced its position on it
//! and is caught up. A
//! connection to a broker counts as set up when it has lived for five seconds and was answered: whatever becomes of one
//! that has is no tight loop. The
//! stack has its own idea of that, and a wrong one is the very defect to be found (Synapse #4749), so it is not asked.
//! The inference may come early, for an instance that still has work to do on a position its consumer has reached; it
//! never comes later than an honest stack's own, so no honest stack is held to a delay it may forget.

use std::collections::BTreeMap;

use super::observation::{Moment, Observation};
use super::topology::{Feed, PUBLICATIONS, SUBSCRIPTION, Topology};
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::Promise;

/// An instance and whom it connects to.
pub(super) type Pair = (InstanceName, InstanceName);

/// How long a connection to a broker has to live, without what was late by the rounding of times.
const SETTLED_AFTER_MS: u64 = 5_000 - 1;

/// Follows every connection until it is set up.
pub(super) struct SetUps {
    topology: Topology,
    positions: BTreeMap<Feed, Token>,
    /// What each open connection lacks yet: its streams, with the position announced if one was.
    lacking: BTreeMap<Pair, BTreeMap<StreamName, Option<Token>>>,
    pairs: BTreeMap<u64, Pair>,
    /// When each connection to a broker was made, and whether anything was answered on it.
    at_broker: BTreeMap<u64, (Moment, bool)>,
}

impl SetUps {
    /// Knows what has to be announced from `topology`.
    pub fn new(topology: &Topology) -> Self {
        let (positions, lacking, pairs, at_broker) = Default::default();
        SetUps { topology: topology.clone(), positions, lacking, pairs, at_broker }
    }

    /// Where a consumer stands, if it follows.
    pub fn position(&self, feed: &Feed) -> Option<Token> {
        self.positions.get(feed).copied()
    }

    /// Whose attempt this is, unless it has ended.
    pub fn pair(&self, attempt: u64) -> Option<&Pair> {
        self.pairs.get(&attempt)
    }

    /// The pair whose connection this observation has set up.
    pub fn observe(&mut self, at: Moment, observation: &Observation) -> Option<Pair> {
        match observation {
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                self.positions.retain(|feed, _| feed.instance != *instance);
                self.lacking.retain(|(from, _), _| from != instance);
                self.pairs.retain(|_, (from, _)| from != instance);
                self.at_broker.retain(|attempt, _| self.pairs.contains_key(attempt));
                None
            }
            Observation::Connecting { instance, target, attempt } => {
                self.pairs.insert(*attempt, (instance.clone(), target.clone()));
                None
            }
            Observation::Connected { attempt, .. } => {
                let pair = self.pairs.get(attempt)?;
                if [SUBSCRIPTION, PUBLICATIONS].contains(&pair.1.as_str()) {
                    self.at_broker.insert(*attempt, (at, false));
                }
                let streams = self.topology.written_by(&pair.1).map(|stream| (stream.clone(), None));
                self.lacking.insert(pair.clone(), streams.collect());
                None
            }
            Observation::Greeted { attempt, .. } => {
                if let Some((_, is_answered)) = self.at_broker.get_mut(attempt) {
                    *is_answered = true;
                    return None;
                }
                let pair = self.pairs.get(attempt)?;
                self.lacking.get(pair)?.is_empty().then(|| pair.clone())
            }
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => {
                let pair = self.pairs.remove(attempt)?;
                self.lacking.remove(&pair);
                let (connected, is_answered) = self.at_broker.remove(attempt)?;
                (is_answered && at.ms_since(connected) >= SETTLED_AFTER_MS).then_some(pair)
            }
            Observation::Announced { attempt, stream, writer, position, .. } => {
                let pair = self.pairs.get(attempt).filter(|(_, target)| target == writer)?.clone();
                let announced = self.lacking.get_mut(&pair)?.get_mut(stream)?;
                let position = *announced.get_or_insert(*position);
                let feed = Feed { instance: pair.0, stream: stream.clone(), writer: pair.1 };
                let held = self.position(&feed).filter(|held| self.lasts(stream) && *held >= position)?;
                self.reached(feed, held)
            }
            Observation::Following { instance, stream, writer, position } => {
                let feed = Feed::new(instance, stream, writer);
                self.positions.insert(feed.clone(), *position);
                if self.lasts(stream) { self.reached(feed, *position) } else { None }
            }
            Observation::Applied { instance, stream, writer, token: position, .. }
            | Observation::Positioned { instance, stream, writer, position }
            | Observation::Reset { instance, stream, writer, position } => {
                let feed = Feed::new(instance, stream, writer);
                self.positions.insert(feed.clone(), *position);
                self.reached(feed, *position)
            }
            _ => None,
        }
    }

    /// Whether a position held before an announcement still means something: not in memory, where it may be of another
    /// boot of the writer.
    fn lasts(&self, stream: &StreamName) -> bool {
        self.topology.promise(stream).is_some_and(|promise| promise != Promise::Memory)
    }

    /// Strikes the stream off what the connection lacks, if its announced position is reached.
    fn reached(&mut self, feed: Feed, position: Token) -> Option<Pair> {
        let pair = (feed.instance, feed.writer);
        let lacking = self.lacking.get_mut(&pair)?;
        lacking.get(&feed.stream).copied().flatten().filter(|announced| position >= *announced)?;
        lacking.remove(&feed.stream);
        lacking.is_empty().then_some(pair)
    }
}
