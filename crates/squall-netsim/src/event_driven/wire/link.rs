//! The way from one host to another: latency, bandwidth, partition.
//!
//! Each directed link draws from a generator of its own, so more traffic or another fault on one link leaves every
//! other link's latencies as they were.

use std::sync::Arc;
use std::time::Duration;

use crate::time::Time;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::segment::HostIndex;
use crate::LatencyRange;
use squall_env::SeedTree;

/// A directed link between two hosts.
pub(crate) struct Link {
    rng: ChaCha8Rng,
    /// The latency of its packets.
    pub latency: LatencyRange,
    /// Bytes a second, headers included; `None` for no limit.
    bandwidth: Option<u64>,
    /// True if nothing gets through.
    pub partitioned: bool,
    /// The number of packets that met the partition.
    pub held: u64,
    /// The number of packets sent.
    pub sent: u64,
    free_at: Option<Time>,
}

impl Link {
    /// A link without faults.
    pub(crate) fn new(rng: ChaCha8Rng, latency: LatencyRange) -> Self {
        Link { rng, latency, bandwidth: None, partitioned: false, held: 0, sent: 0, free_at: None }
    }

    /// The most bytes a second that it carries, if limited.
    pub(crate) fn is_limited(&self) -> bool {
        self.bandwidth.is_some()
    }

    /// Sets the limit, in bytes a second. Without one the link is free at once.
    pub(crate) fn set_bandwidth(&mut self, bytes_per_sec: Option<u64>) {
        self.bandwidth = bytes_per_sec;
        if bytes_per_sec.is_none() {
            self.free_at = None;
        }
    }

    /// Draws the arrival of a packet of `size` bytes sent at `now`. A limited link is busy with each packet for as long as its
    /// bytes take.
    pub(crate) fn arrival(&mut self, now: Time, size: u32) -> Time {
        let LatencyRange { min_us, max_us } = self.latency;
        self.sent += 1;
        let departure = match self.bandwidth {
            Some(rate) => {
                let takes = Duration::from_nanos(u64::from(size) * 1_000_000_000 / rate.max(1));
                let free_at = self.free_at.map_or(now, |free_at| free_at.max(now)) + takes;
                *self.free_at.insert(free_at)
            }
            None => now,
        };
        departure + Duration::from_micros(self.rng.random_range(min_us..=max_us.max(min_us)))
    }
}

/// All links. One is made when it is first used.
pub(crate) struct Links {
    /// The names of the hosts.
    hosts: Vec<Arc<str>>,
    /// One place for each pair of hosts, ordered by sender first.
    links: Vec<Option<Box<Link>>>,
    /// The source of every link's draws: the latencies of the link from `a` to `b` are drawn from `a>b`.
    seeds: SeedTree,
    /// The latency of every link that has none of its own.
    pub latency: LatencyRange,
}

impl Links {
    /// The links between so many hosts.
    pub(crate) fn new(hosts: Vec<Arc<str>>, seeds: SeedTree, latency: LatencyRange) -> Self {
        let links = (0..hosts.len().pow(2)).map(|_| None).collect();
        Links { hosts, links, seeds, latency }
    }

    /// The link from one host to another.
    pub(crate) fn get(&mut self, from: HostIndex, to: HostIndex) -> &mut Link {
        let place = self.place(from, to);
        let Links { hosts, links, seeds, latency } = self;
        links[place].get_or_insert_with(|| {
            let name = |host: HostIndex| &hosts[usize::from(host.0)];
            let seeds = seeds.child(format_args!("{}>{}", name(from), name(to)));
            Box::new(Link::new(seeds.rng(), *latency))
        })
    }

    /// Returns true if nothing gets through from one host to another.
    pub(crate) fn is_partitioned(&self, from: HostIndex, to: HostIndex) -> bool {
        self.links[self.place(from, to)].as_ref().is_some_and(|link| link.partitioned)
    }

    /// All links in use.
    pub(crate) fn in_use(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut().flatten().map(Box::as_mut)
    }

    fn place(&self, from: HostIndex, to: HostIndex) -> usize {
        usize::from(from.0) * self.hosts.len() + usize::from(to.0)
    }
}
