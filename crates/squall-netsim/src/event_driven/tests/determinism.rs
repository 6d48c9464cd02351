//! One seed, one run.

use std::cell::Cell;

use rand::{Rng, RngExt};
use sha2::{Digest, Sha256};

use super::*;

/// A tap that hashes every event, with the simulated time since the first event.
#[derive(Default)]
struct Hash {
    hash: RefCell<Sha256>,
    start: Cell<Option<Instant>>,
    events: Cell<u64>,
}

impl Hash {
    fn note(&self, what: impl std::fmt::Debug, bytes: &[u8]) {
        let start = self.start.get().unwrap_or_else(Instant::now);
        self.start.set(Some(start));
        self.events.set(self.events.get() + 1);
        let mut hash = self.hash.borrow_mut();
        hash.update(format!("{:?} {what:?}", start.elapsed()));
        hash.update(bytes);
    }

    fn result(&self) -> (u64, [u8; 32]) {
        (self.events.get(), self.hash.borrow().clone().finalize().into())
    }
}

impl Tap for Hash {
    fn connecting(&self, attempt: &Attempt) {
        self.note(attempt, b"");
    }
    fn connect_ended(&self, attempt: &Attempt, result: Result<(), io::ErrorKind>) {
        self.note((attempt, result), b"");
    }
    fn accepted(&self, end: &End) {
        self.note(("accepted", end), b"");
    }
    fn read(&self, end: &End, bytes: &[u8]) {
        self.note(("read", end), bytes);
    }
    fn written(&self, end: &End, bytes: &[u8]) {
        self.note(("written", end), bytes);
    }
    fn closed(&self, end: &End) {
        self.note(("closed", end), b"");
    }
}

const HOSTS: [&str; 4] = ["hub", "one", "two", "three"];

/// A process that serves echoes and pings every other host, reconnecting for ever.
async fn gossip(network: HostNetwork, own: &'static str) {
    let mut listener = network.listen(PORT).await.expect("the port is free at every start");
    for peer in HOSTS.into_iter().filter(|peer| *peer != own) {
        let network = network.clone();
        tokio::task::spawn_local(async move {
            loop {
                if let Ok(mut stream) = dial(&network, peer).await {
                    while timeout(2 * SECOND, ping(&mut stream)).await.is_ok_and(|pinged| pinged.is_ok()) {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    while let Ok(stream) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

fn start(engine: Engine, host: &'static str) {
    engine.start(host, |network| gossip(network, host));
}

/// One fault of any kind, drawn from `rng`.
fn inject(engine: Engine, rng: &mut impl Rng) {
    let (a, b) = (HOSTS[rng.random_range(0..4)], HOSTS[rng.random_range(0..4)]);
    let coin = rng.random_range(0..2) == 0;
    match rng.random_range(0..12) {
        0 => _ = engine.stop(a),
        1 => _ = engine.power_cut(a),
        2 => _ = engine.freeze(a),
        3 => _ = engine.thaw(a),
        4 => engine.connections(a, b).iter().for_each(|connection| assert!(engine.cut(connection))),
        5 => engine.partition(a, b),
        6 => engine.heal(a, b),
        7 => engine.heal_all(),
        8 => engine.set_latency(a, b, LatencyRange { min_us: 0, max_us: 400_000 }),
        9 => engine.set_bandwidth(a, b, coin.then_some(2_000)),
        10 => {
            for connection in engine.connections(a, b).iter().filter(|_| a != b) {
                assert!(engine.half_open(connection, a));
                tokio::task::spawn_local({
                    let connection = connection.clone();
                    async move {
                        tokio::time::sleep(5 * SECOND).await;
                        engine.answer(&connection);
                    }
                });
            }
        }
        _ => engine.slow_reader(a, coin.then_some(SlowReader { bytes: 1, pause: SECOND / 3 })),
    }
    for host in HOSTS {
        if !engine.is_up(host) && rng.random_range(0..3) == 0 {
            start(engine, host);
        }
    }
}

/// Thirty faults in thirty seconds, then calm; returns the trace's hash.
fn run(seed: u64) -> (u64, [u8; 32]) {
    let tap = Rc::new(Hash::default());
    let mut rng = SeedTree::from_seed(seed).child("faults").rng();
    let options = Options { tap: tap.clone(), ..options(seed, &HOSTS) };
    simulate(options, |engine| async move {
        HOSTS.into_iter().for_each(|host| start(engine, host));
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..2_000))).await;
            inject(engine, &mut rng);
        }
        calm(engine).await;
    });
    tap.result()
}

/// Ends all faults; all hosts must then be connected with each other.
async fn calm(engine: Engine) {
    engine.heal_all();
    for host in HOSTS {
        engine.thaw(host);
        engine.slow_reader(host, None);
        if !engine.is_up(host) {
            start(engine, host);
        }
        for other in HOSTS {
            engine.reset_latency(host, other);
            engine.set_bandwidth(host, other, None);
        }
    }
    tokio::time::sleep(20 * SECOND).await;
    for host in &HOSTS[1..] {
        assert!(engine.connections("hub", host).len() >= 2, "{host} and the hub find each other again");
    }
}

#[test]
fn two_hundred_stormy_seeds_run_twice_the_same() {
    for seed in 0..200 {
        let first = run(seed);
        assert!(first.0 > 500, "seed {seed} did little: {} events", first.0);
        assert_eq!(first, run(seed), "seed {seed}");
    }
}

#[test]
fn seeds_differ() {
    assert_ne!(run(1), run(2));
}

#[test]
fn simulations_on_several_threads_do_not_meet() {
    let alone = run(3);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| run(3))).collect();
        for other in others {
            assert_eq!(other.join().unwrap(), alone);
        }
    });
}

/// When a byte every second from the client arrives at the server, with or without other traffic.
fn arrivals(chatter: bool) -> Vec<Duration> {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        if chatter {
            engine.set_latency("bystander", "client", LatencyRange { min_us: 0, max_us: 50_000 });
            engine.start("bystander", knock);
        }
        let mut arrivals = Vec::new();
        for _ in 0..20 {
            tokio::time::sleep(SECOND).await;
            let since = Instant::now();
            client.write_all(b"!").await.unwrap();
            server.read_u8().await.unwrap();
            arrivals.push(since.elapsed());
        }
        arrivals
    })
}

/// Dials a closed port of the client all the time.
async fn knock(network: HostNetwork) {
    loop {
        let _ = dial(&network, "client").await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
}

#[test]
fn traffic_on_one_link_leaves_the_draws_of_others_alone() {
    assert_eq!(arrivals(false), arrivals(true));
}
