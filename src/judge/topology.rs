//! What the judge must know of a deployment: which instances there are, and who writes what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::protocol::{InstanceName, StreamName};
use crate::streams::Promise;

/// What an instance's subscription at a broker counts as connected to.
pub const SUBSCRIPTION: &str = "broker/subscription";
/// What the connection on which it publishes counts as connected to.
pub const PUBLICATIONS: &str = "broker/publications";

/// One instance's view of one writer's rows of one stream: the unit in which replication succeeds or fails.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Feed {
    /// The instance that follows.
    pub instance: InstanceName,
    /// The stream it follows.
    pub stream: StreamName,
    /// Whose rows these are.
    pub writer: InstanceName,
}

impl Feed {
    /// The view that `instance` has of `writer`'s rows of `stream`.
    pub fn new(instance: &InstanceName, stream: &StreamName, writer: &InstanceName) -> Self {
        Feed { instance: instance.clone(), stream: stream.clone(), writer: writer.clone() }
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} on {}", self.stream, self.writer, self.instance)
    }
}

/// A deployment. Each instance follows every stream of every writer but itself.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    instances: BTreeSet<InstanceName>,
    streams: BTreeMap<StreamName, Written>,
    process_expiry_ms: Option<u64>,
}

#[derive(Debug, Clone)]
struct Written {
    promise: Promise,
    writers: BTreeSet<InstanceName>,
}

impl Topology {
    /// A deployment of these instances, which write nothing yet.
    pub fn new(instances: impl IntoIterator<Item = InstanceName>) -> Self {
        Topology { instances: instances.into_iter().collect(), ..Topology::default() }
    }

    /// The same deployment with a stream that `writers` write. Writers are instances too.
    pub fn with_stream(
        mut self,
        stream: impl Into<StreamName>,
        promise: Promise,
        writers: impl IntoIterator<Item = InstanceName>,
    ) -> Self {
        let writers: BTreeSet<InstanceName> = writers.into_iter().collect();
        self.instances.extend(writers.iter().cloned());
        self.streams.insert(stream.into(), Written { promise, writers });
        self
    }

    /// The same deployment, where a process that is silent for so long serves nobody.
    pub fn with_process_expiry_ms(mut self, process_expiry_ms: u64) -> Self {
        self.process_expiry_ms = Some(process_expiry_ms);
        self
    }

    /// After how long a silence a process serves nobody; five minutes if nothing else is said.
    pub fn process_expiry_ms(&self) -> u64 {
        self.process_expiry_ms.unwrap_or(300_000)
    }

    /// What followers of `stream` may count on; none if nobody writes it.
    pub fn promise(&self, stream: &StreamName) -> Option<Promise> {
        self.streams.get(stream).map(|written| written.promise)
    }

    /// The streams that `writer` writes.
    pub fn written_by(&self, writer: &InstanceName) -> impl Iterator<Item = &StreamName> {
        self.streams.iter().filter(|(_, written)| written.writers.contains(writer)).map(|(stream, _)| stream)
    }

    /// Whether `writer` is configured to write `stream`.
    pub fn is_written_by(&self, stream: &StreamName, writer: &InstanceName) -> bool {
        self.streams.get(stream).is_some_and(|written| written.writers.contains(writer))
    }

    /// Every stream with its promise and each of its writers.
    pub fn writers(&self) -> impl Iterator<Item = (&StreamName, Promise, &InstanceName)> {
        self.streams
            .iter()
            .flat_map(|(stream, written)| written.writers.iter().map(move |writer| (stream, written.promise, writer)))
    }

    /// Everything that is followed.
    pub fn feeds(&self) -> impl Iterator<Item = Feed> {
        self.writers().flat_map(|(stream, _, writer)| {
            let others = self.instances.iter().filter(move |instance| *instance != writer);
            others.map(move |instance| Feed::new(instance, stream, writer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instance_follows_every_writer_but_itself() {
        let name = |name: &str| InstanceName::from(name);
        let topology = Topology::new([name("worker")])
            .with_stream("events", Promise::Log, [name("writer1"), name("writer2")])
            .with_stream("typing", Promise::Memory, [name("writer1")]);
        let feeds: Vec<String> = topology.feeds().map(|feed| feed.to_string()).collect();
        assert_eq!(
            feeds,
            [
                "events of writer1 on worker",
                "events of writer1 on writer2",
                "events of writer2 on worker",
                "events of writer2 on writer1",
                "typing of writer1 on worker",
                "typing of writer1 on writer2",
            ]
        );
        assert_eq!(topology.written_by(&name("writer2")).count(), 1);
        assert!(topology.is_written_by(&"typing".into(), &name("writer1")));
        assert!(!topology.is_written_by(&"typing".into(), &name("writer2")));
    }
}
