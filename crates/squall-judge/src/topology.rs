//! The deployment as the judge knows it: the instances, and the writers of each stream.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use squall_protocol::Delivery;
use squall_protocol::rows::ROWS_TARGET;
use squall_protocol::{InstanceName, StreamName};

/// The target of an instance's subscription at a broker.
pub const SUBSCRIPTION: &str = "broker/subscription";
/// The target of the connection on which an instance publishes at a broker.
pub const PUBLICATIONS: &str = "broker/publications";

/// The target of the short connections on which an instance publishes now and then, to learn where the broker's name leads.
pub const NAME_CHECK: &str = "broker/name_check";

/// One instance's view of one writer's rows of one stream: the unit in which replication succeeds or fails.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FollowerKey {
    /// The instance that follows.
    pub instance: InstanceName,
    /// The stream it follows.
    pub stream: StreamName,
    /// The writer of the rows.
    pub writer: InstanceName,
}

impl FollowerKey {
    /// Returns the view that `instance` has of `writer`'s rows of `stream`.
    pub fn new(instance: &InstanceName, stream: &StreamName, writer: &InstanceName) -> Self {
        FollowerKey { instance: instance.clone(), stream: stream.clone(), writer: writer.clone() }
    }
}

impl fmt::Display for FollowerKey {
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
    in_time_ms: Option<u64>,
    presence_times_ms: Option<(u64, u64)>,
    rows_per_query: Option<usize>,
    discards_rows: bool,
    has_few_connections: bool,
    has_short_outboxes: bool,
    has_low_output_limit: bool,
}

#[derive(Debug, Clone)]
struct Written {
    delivery: Delivery,
    writers: BTreeSet<InstanceName>,
}

impl Topology {
    /// Returns a deployment of these instances, without streams.
    pub fn new(instances: impl IntoIterator<Item = InstanceName>) -> Self {
        Topology { instances: instances.into_iter().collect(), ..Topology::default() }
    }

    /// Adds a stream with its writers. Writers are instances too.
    pub fn with_stream(
        mut self,
        stream: impl Into<StreamName>,
        delivery: Delivery,
        writers: impl IntoIterator<Item = InstanceName>,
    ) -> Self {
        let writers: BTreeSet<InstanceName> = writers.into_iter().collect();
        self.instances.extend(writers.iter().cloned());
        self.streams.insert(stream.into(), Written { delivery, writers });
        self
    }

    /// Sets the silence after which the presence writer takes a process for dead.
    pub fn with_process_expiry_ms(mut self, process_expiry_ms: u64) -> Self {
        self.process_expiry_ms = Some(process_expiry_ms);
        self
    }

    /// Returns the silence after which the presence writer takes a process for dead. Default: five minutes.
    pub fn process_expiry_ms(&self) -> u64 {
        self.process_expiry_ms.unwrap_or(300_000)
    }

    /// Sets the time within which a row arrives, and a client is answered, where nothing is disturbed.
    pub fn with_in_time_ms(mut self, in_time_ms: u64) -> Self {
        self.in_time_ms = Some(in_time_ms);
        self
    }

    /// Returns the time within which a row arrives, and a client is answered, where nothing is disturbed. Default: one
    /// second.
    pub fn in_time_ms(&self) -> u64 {
        self.in_time_ms.unwrap_or(1_000)
    }

    /// Sets the time without activity after which an online device is idle, and the time without a sync after which a busy
    /// device is offline.
    pub fn with_presence_times_ms(mut self, idle_ms: u64, busy_ms: u64) -> Self {
        self.presence_times_ms = Some((idle_ms, busy_ms));
        self
    }

    /// Returns the time without activity after which an online device is idle, and the time without a sync after which a
    /// busy device is offline. Default: five minutes and an hour.
    pub fn presence_times_ms(&self) -> (u64, u64) {
        self.presence_times_ms.unwrap_or((300_000, 3_600_000))
    }

    /// Sets the number of rows that one query for rows of a stream aims to return.
    pub fn with_rows_per_query(mut self, rows_per_query: usize) -> Self {
        self.rows_per_query = Some(rows_per_query);
        self
    }

    /// Returns the number of rows that one query for rows of a stream aims to return. Default: [`ROWS_TARGET`].
    pub fn rows_per_query(&self) -> usize {
        self.rows_per_query.unwrap_or(ROWS_TARGET)
    }

    /// Makes the queues or batches of followers so short that rows which have arrived are discarded and fetched again.
    pub fn with_discarded_rows(mut self) -> Self {
        self.discards_rows = true;
        self
    }

    /// Lets instances have so few connections that they refuse some in a healthy deployment.
    pub fn with_few_connections(mut self) -> Self {
        self.has_few_connections = true;
        self
    }

    /// Returns true if instances refuse some connections in a healthy deployment. Default: false, as in production.
    pub fn has_few_connections(&self) -> bool {
        self.has_few_connections
    }

    /// Lets so few commands wait for a peer that instances drop some peers in a healthy deployment.
    pub fn with_short_outboxes(mut self) -> Self {
        self.has_short_outboxes = true;
        self
    }

    /// Returns true if instances drop some peers in a healthy deployment. Default: false, as in production.
    pub fn has_short_outboxes(&self) -> bool {
        self.has_short_outboxes
    }

    /// Lets the broker drop a subscriber for which little is waiting, as happens in a healthy deployment then.
    pub fn with_low_output_limit(mut self) -> Self {
        self.has_low_output_limit = true;
        self
    }

    /// Returns true if the broker drops some subscribers in a healthy deployment. Default: false, as in production.
    pub fn has_low_output_limit(&self) -> bool {
        self.has_low_output_limit
    }

    /// Returns true if followers have queues or batches so short that rows which have arrived are discarded and fetched
    /// again. Default: false, as in production.
    pub fn discards_rows(&self) -> bool {
        self.discards_rows
    }

    /// Returns every instance.
    pub(super) fn instances(&self) -> impl Iterator<Item = &InstanceName> {
        self.instances.iter()
    }

    /// Returns the delivery guarantee of `stream`; none for an unknown stream.
    pub fn delivery(&self, stream: &StreamName) -> Option<Delivery> {
        self.streams.get(stream).map(|written| written.delivery)
    }

    /// Returns the streams that `writer` writes.
    pub fn written_by(&self, writer: &InstanceName) -> impl Iterator<Item = &StreamName> {
        self.streams.iter().filter(|(_, written)| written.writers.contains(writer)).map(|(stream, _)| stream)
    }

    /// Returns true if `writer` is configured to write `stream`.
    pub fn is_written_by(&self, stream: &StreamName, writer: &InstanceName) -> bool {
        self.streams.get(stream).is_some_and(|written| written.writers.contains(writer))
    }

    /// Returns every stream with its delivery guarantee and each of its writers.
    pub fn writers(&self) -> impl Iterator<Item = (&StreamName, Delivery, &InstanceName)> {
        self.streams
            .iter()
            .flat_map(|(stream, written)| written.writers.iter().map(move |writer| (stream, written.delivery, writer)))
    }

    /// Returns every instance with every stream and writer that it follows.
    pub fn followers(&self) -> impl Iterator<Item = FollowerKey> {
        self.writers().flat_map(|(stream, _, writer)| {
            let others = self.instances.iter().filter(move |instance| *instance != writer);
            others.map(move |instance| FollowerKey::new(instance, stream, writer))
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
            .with_stream("events", Delivery::Log, [name("writer1"), name("writer2")])
            .with_stream("typing", Delivery::Memory, [name("writer1")]);
        let followers: Vec<String> = topology.followers().map(|follower| follower.to_string()).collect();
        assert_eq!(
            followers,
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
