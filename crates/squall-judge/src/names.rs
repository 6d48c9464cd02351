//! Numbers for names, so that an invariant finds what it knows of an instance, a writer or a follower by an index.
//!
//! The names of the topology have their numbers from the beginning, in the order of the names. Others get one when they are
//! first observed.

use std::marker::PhantomData;

use super::topology::{FollowerKey, Topology};
use squall_protocol::{Delivery, InstanceName, StreamName};

/// A number that a [`Table`] has an entry for.
pub(crate) trait Number: Copy {
    /// Returns the index of the entry.
    fn index(self) -> usize;
    /// Returns the number whose entry has this index.
    fn at(index: usize) -> Self;
}

macro_rules! number {
    ($(#[$doc:meta])* $Number:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $Number(u32);

        impl Number for $Number {
            fn index(self) -> usize {
                self.0 as usize
            }

            fn at(index: usize) -> Self {
                $Number(index as u32)
            }
        }
    };
}

number! {
    /// The number of an instance, or of another target of connections.
    Instance
}
number! {
    /// The number of a stream.
    Stream
}
number! {
    /// The number of one writer's rows of one stream.
    Source
}

/// One instance's view of one writer's rows of one stream, by numbers: see [`FollowerKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Follower {
    pub source: Source,
    pub instance: Instance,
}

/// The names that have a number.
pub(crate) struct Names {
    instances: Vec<InstanceName>,
    /// The number of instances of the deployment. They come first.
    deployed: usize,
    streams: Vec<NamedStream>,
    sources: Vec<NamedSource>,
}

struct NamedStream {
    name: StreamName,
    delivery: Option<Delivery>,
    sources: Vec<Source>,
}

struct NamedSource {
    stream: Stream,
    writer: Instance,
    is_configured: bool,
}

impl Names {
    /// Numbers the names of a deployment.
    pub(crate) fn new(topology: &Topology) -> Self {
        let instances: Vec<InstanceName> = topology.instances().cloned().collect();
        let mut names = Names { deployed: instances.len(), instances, streams: vec![], sources: vec![] };
        for (stream, delivery, writer) in topology.writers() {
            let source = names.source(stream.as_str(), writer);
            let NamedSource { stream, is_configured, .. } = &mut names.sources[source.index()];
            *is_configured = true;
            names.streams[stream.index()].delivery = Some(delivery);
        }
        names
    }

    /// Returns the number of an instance or target.
    pub(crate) fn instance(&mut self, name: &InstanceName) -> Instance {
        let known = self.instances.iter().position(|known| known == name);
        Instance::at(known.unwrap_or_else(|| {
            self.instances.push(name.clone());
            self.instances.len() - 1
        }))
    }

    /// Returns the number of a stream.
    pub(crate) fn stream(&mut self, name: &str) -> Stream {
        let known = self.streams.iter().position(|known| known.name.as_str() == name);
        Stream::at(known.unwrap_or_else(|| {
            self.streams.push(NamedStream { name: name.into(), delivery: None, sources: Vec::new() });
            self.streams.len() - 1
        }))
    }

    /// Returns the number of `writer`'s rows of `stream`.
    pub(crate) fn source(&mut self, stream: &str, writer: &InstanceName) -> Source {
        let (stream, writer) = (self.stream(stream), self.instance(writer));
        let of_stream = &mut self.streams[stream.index()].sources;
        let known = of_stream.iter().find(|source| self.sources[source.index()].writer == writer);
        known.copied().unwrap_or_else(|| {
            let source = Source::at(self.sources.len());
            of_stream.push(source);
            self.sources.push(NamedSource { stream, writer, is_configured: false });
            source
        })
    }

    /// Returns the number of `writer`'s rows of `stream`, if it has one.
    pub(crate) fn find(&self, stream: &str, writer: &InstanceName) -> Option<Source> {
        let stream = self.streams.iter().find(|known| known.name.as_str() == stream)?;
        stream.sources.iter().copied().find(|source| self.name_of(self.writer_of(*source)) == writer)
    }

    /// Returns the name of an instance or target.
    pub(crate) fn name_of(&self, instance: Instance) -> &InstanceName {
        &self.instances[instance.index()]
    }

    /// Returns the stream of a writer's rows.
    pub(crate) fn stream_of(&self, source: Source) -> Stream {
        self.sources[source.index()].stream
    }

    /// Returns the writer of rows.
    pub(crate) fn writer_of(&self, source: Source) -> Instance {
        self.sources[source.index()].writer
    }

    /// Returns the name of the stream of a writer's rows.
    pub(crate) fn stream_name_of(&self, source: Source) -> &StreamName {
        &self.streams[self.stream_of(source).index()].name
    }

    /// Returns the rows that instances are configured to write.
    pub(crate) fn configured(&self) -> impl Iterator<Item = Source> {
        (0..self.sources.len()).map(Source::at).filter(|source| self.is_configured(*source))
    }

    /// Returns the followers of rows: every instance of the deployment but the writer.
    pub(crate) fn followers_of(&self, source: Source) -> impl Iterator<Item = Follower> {
        let instances = (0..self.deployed).map(Instance::at);
        let others = instances.filter(move |instance| *instance != self.writer_of(source));
        others.map(move |instance| Follower { source, instance })
    }

    /// Returns true if the writer is configured to write the stream.
    pub(crate) fn is_configured(&self, source: Source) -> bool {
        self.sources[source.index()].is_configured
    }

    /// Returns the delivery guarantee of the rows' stream; none for an unknown stream.
    pub(crate) fn delivery_of(&self, source: Source) -> Option<Delivery> {
        self.streams[self.stream_of(source).index()].delivery
    }

    /// Returns the streams that an instance is configured to write.
    pub(crate) fn written_by(&self, writer: Instance) -> impl Iterator<Item = Stream> {
        let sources = self.sources.iter().filter(move |source| source.is_configured && source.writer == writer);
        sources.map(|source| source.stream)
    }

    /// Returns the sources of a stream.
    pub(crate) fn sources_of(&self, stream: Stream) -> &[Source] {
        &self.streams[stream.index()].sources
    }

    /// Returns the names of a follower.
    pub(crate) fn key_of(&self, Follower { source, instance }: Follower) -> FollowerKey {
        FollowerKey::new(self.name_of(instance), self.stream_name_of(source), self.name_of(self.writer_of(source)))
    }
}

/// A value for each number.
#[derive(Debug, Clone)]
pub(crate) struct Table<K, V> {
    entries: Vec<Option<V>>,
    keys: PhantomData<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { entries: Vec::new(), keys: PhantomData }
    }
}

impl<K: Number, V> Table<K, V> {
    fn entry(&mut self, key: K) -> &mut Option<V> {
        if self.entries.len() <= key.index() {
            self.entries.resize_with(key.index() + 1, || None);
        }
        &mut self.entries[key.index()]
    }

    /// Returns the value of `key`.
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.entries.get(key.index())?.as_ref()
    }

    /// Returns the value of `key`, to change it.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.entries.get_mut(key.index())?.as_mut()
    }

    /// Returns the value of `key`, which is that of `value` if there was none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        self.entry(key).get_or_insert_with(value)
    }

    /// Returns the value of `key`, which is the default one if there was none.
    pub(crate) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.get_or_insert_with(key, V::default)
    }

    /// Sets the value of `key`, and returns the one before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.entry(key).replace(value)
    }

    /// Removes the value of `key`.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        self.entries.get_mut(key.index())?.take()
    }

    /// Removes the values of the numbers that are not to be kept.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(K) -> bool) {
        for (index, value) in self.entries.iter_mut().enumerate() {
            if value.is_some() && !is_kept(K::at(index)) {
                *value = None;
            }
        }
    }

    /// Returns every number that has a value, with the value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().enumerate().filter_map(|(index, value)| Some((K::at(index), value.as_ref()?)))
    }

    /// Returns every number that has a value, with the value, to change it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, value)| Some((K::at(index), value.as_mut()?)))
    }
}

/// A value for each follower.
#[derive(Debug, Clone)]
pub(crate) struct Followers<V>(Table<Source, Table<Instance, V>>);

impl<V> Default for Followers<V> {
    fn default() -> Self {
        Followers(Table::default())
    }
}

impl<V> Followers<V> {
    /// Returns the value of a follower.
    pub(crate) fn get(&self, follower: Follower) -> Option<&V> {
        self.0.get(follower.source)?.get(follower.instance)
    }

    /// Returns the value of a follower, to change it.
    pub(crate) fn get_mut(&mut self, follower: Follower) -> Option<&mut V> {
        self.0.get_mut(follower.source)?.get_mut(follower.instance)
    }

    /// Returns the value of a follower, which is the default one if there was none.
    pub(crate) fn or_default(&mut self, follower: Follower) -> &mut V
    where
        V: Default,
    {
        self.0.or_default(follower.source).or_default(follower.instance)
    }

    /// Sets the value of a follower, and returns the one before.
    pub(crate) fn insert(&mut self, follower: Follower, value: V) -> Option<V> {
        self.0.or_default(follower.source).insert(follower.instance, value)
    }

    /// Removes the value of a follower.
    pub(crate) fn remove(&mut self, follower: Follower) -> Option<V> {
        self.0.get_mut(follower.source)?.remove(follower.instance)
    }

    /// Returns the instances that follow `source`, with their values.
    pub(crate) fn of(&self, source: Source) -> impl Iterator<Item = (Instance, &V)> {
        self.0.get(source).into_iter().flat_map(Table::iter)
    }

    /// Returns the instances that follow `source`, with their values, to change them.
    pub(crate) fn of_mut(&mut self, source: Source) -> impl Iterator<Item = (Instance, &mut V)> {
        self.0.get_mut(source).into_iter().flat_map(Table::iter_mut)
    }

    /// Returns every follower with its value, to change it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Follower, &mut V)> {
        let sources = self.0.iter_mut();
        sources.flat_map(|(source, followers)| {
            followers.iter_mut().map(move |(instance, value)| (Follower { source, instance }, value))
        })
    }

    /// Removes the values of the followers that are not to be kept.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(Follower) -> bool) {
        for (source, followers) in self.0.iter_mut() {
            followers.retain(|instance| is_kept(Follower { source, instance }));
        }
    }

    /// Removes the values of an instance's process.
    pub(crate) fn forget(&mut self, instance: Instance) {
        for (_, followers) in self.0.iter_mut() {
            followers.remove(instance);
        }
    }
}
