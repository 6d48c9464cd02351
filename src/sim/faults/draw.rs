//! The draws that faults share: hosts, connections, outages.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::sim::deployment::{BROKER, Deployment};

/// The time for which a kind of fault leaves its hosts alone after one of its faults.
pub(in crate::sim) const STABLE_MS: u64 = 1_000;
/// The length of the stretches of time in which a host is taken down either by power cuts or by restarts.
pub(super) const OUTAGE_STRETCH_MS: u64 = 10_000;

/// The circumstances in which one fault is drawn.
pub(in crate::sim) struct Draw<'a> {
    /// The generator of this fault alone.
    pub rng: &'a mut ChaCha8Rng,
    /// The deployment that the fault hits.
    pub deployment: &'a Deployment,
    /// The time at which the fault begins, in milliseconds since the start.
    pub at_ms: u64,
    /// The length of the storm, in milliseconds.
    pub storm_ms: u64,
}

impl Draw<'_> {
    /// Draws one of `values`.
    pub(crate) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.rng.random_range(0..values.len())]
    }

    /// Draws any instance.
    pub(crate) fn instance(&mut self) -> String {
        pick(self.rng, self.deployment.hosts())
    }

    /// Draws an instance that accepts connections: the master or a writer.
    pub(crate) fn server(&mut self) -> String {
        pick(self.rng, self.deployment.writers())
    }

    /// Draws two hosts that have a connection, the one that opened it first.
    pub(crate) fn client_and_server(&mut self) -> (String, String) {
        // With a broker, instances are connected to each other only during requests.
        if self.deployment.broker.is_some() && self.rng.random_ratio(3, 4) {
            return (self.instance(), BROKER.to_owned());
        }
        let server = self.server();
        let client = pick(self.rng, self.deployment.hosts().filter(|host| *host != server));
        (client, server)
    }

    /// Draws two hosts that have a connection, in either order.
    pub(crate) fn connected_hosts(&mut self) -> (String, String) {
        let (client, server) = self.client_and_server();
        if self.rng.random_ratio(1, 2) { (client, server) } else { (server, client) }
    }

    /// Draws any instance or, where there is one, the broker.
    pub(crate) fn instance_or_broker(&mut self) -> String {
        if self.deployment.broker.is_some() && self.rng.random_ratio(1, 4) {
            return BROKER.to_owned();
        }
        self.instance()
    }

    /// Draws a host that uses the database, or none, which stands for all of them.
    pub(crate) fn database_user_or_all(&mut self) -> Option<String> {
        let is_all = self.rng.random_ratio(1, 4);
        let host = self.database_user();
        (!is_all).then_some(host)
    }

    /// Draws a host that uses the database: as often as not one that writes rows.
    pub(crate) fn database_user(&mut self) -> String {
        if self.rng.random_ratio(1, 2) { self.rows_writer() } else { self.instance() }
    }

    /// Draws a host that writes rows: as often as not those of `events`, which come in bursts.
    pub(crate) fn rows_writer(&mut self) -> String {
        let deployment = self.deployment;
        let writes_events = self.rng.random_ratio(1, 2);
        pick(self.rng, deployment.writers().filter(|host| !writes_events || deployment.writes_events(host)))
    }

    /// Draws a host to take down, and for how long. Returns none if there is no room for it at that time.
    ///
    /// Power cuts and restarts are drawn without knowing of each other. In every stretch of time each has every second
    /// host, and in the next stretch the other hosts: `turn` is 0 for one and 1 for the other. Rolling restarts know
    /// neither: like an upgrade, they pass over a host that is down already, and neither finds one that they took down.
    pub(crate) fn outage(&mut self, turn: u64) -> Option<(String, u64)> {
        let host = self.outage_host(turn);
        let is_long = self.rng.random_ratio(1, 6);
        let for_ms = if is_long { self.rng.random_range(2_500..=7_000) } else { self.rng.random_range(50..=2_500) };
        let fits = self.at_ms % OUTAGE_STRETCH_MS + for_ms + STABLE_MS <= OUTAGE_STRETCH_MS;
        fits.then_some((host, for_ms))
    }

    fn outage_host(&mut self, turn: u64) -> String {
        let parity = self.at_ms / OUTAGE_STRETCH_MS + turn;
        let every_second = self.deployment.machines().zip(parity..).filter(|(_, place)| place % 2 == 0);
        let hosts: Vec<&str> = every_second.map(|(host, _)| host).collect();
        // An outage of the broker hits every instance, so it is drawn more often than each of them.
        if hosts.contains(&BROKER) && self.rng.random_ratio(1, 3) {
            return BROKER.to_owned();
        }
        pick(self.rng, hosts.into_iter())
    }
}

fn pick<'a>(rng: &mut ChaCha8Rng, hosts: impl Iterator<Item = &'a str>) -> String {
    let hosts: Vec<&str> = hosts.collect();
    hosts[rng.random_range(0..hosts.len())].to_owned()
}
