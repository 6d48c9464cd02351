//! The networks that are compared.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use squall_env::{Address, SeedTree};
use squall_netsim::{self as engine, EngineName, LatencyRange, Options};
use tokio::io::duplex;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::now;
use super::workload::{Arrived, Outboxes, Star, serve, spoke};

const PORT: u16 = 9000;

/// A simulated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Pipes in one paused runtime, without hosts and latency: the least that any simulation on tokio costs.
    Bare,
    /// The engine of this crate.
    Squall,
    /// turmoil in steps of a millisecond.
    Turmoil1,
    /// turmoil in steps of ten.
    Turmoil10,
}

impl Network {
    /// Every network.
    pub(crate) const ALL: [Network; 4] = [Network::Bare, Network::Squall, Network::Turmoil1, Network::Turmoil10];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Network::Bare => "bare",
            Network::Squall => "squall",
            Network::Turmoil1 => "turmoil-1",
            Network::Turmoil10 => "turmoil-10",
        }
    }

    /// Runs a star, and returns the real time that it took.
    ///
    /// # Panics
    /// If a line does not arrive.
    pub(crate) fn run(self, star: Star) -> Duration {
        let began = now();
        let arrived = match self {
            Network::Bare => bare(star),
            Network::Squall => squall(star),
            Network::Turmoil1 => turmoil(star, Duration::from_millis(1)),
            Network::Turmoil10 => turmoil(star, Duration::from_millis(10)),
        };
        let took = began.elapsed();
        assert_eq!(arrived, star.lines(), "every line arrives");
        took
    }
}

fn bare(star: Star) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let arrived = Arrived::default();
    let tasks = LocalSet::new();
    tasks.block_on(&runtime.expect("a runtime without I/O"), async {
        let outboxes = Outboxes::default();
        for n in 0..star.spokes {
            let (here, there) = duplex(64 * 1024);
            serve(there, &outboxes, star, Rc::clone(&arrived));
            spawn_local(spoke(here, n, star, sleep, Rc::clone(&arrived)));
        }
        sleep(Duration::from_secs(star.secs + 1)).await;
    });
    arrived.get()
}

fn squall(star: Star) -> u64 {
    let spokes = (0..star.spokes).map(|n| Arc::from(format!("spoke{n}")));
    let hosts: Vec<Arc<str>> = std::iter::once(Arc::from("hub")).chain(spokes).collect();
    let options = Options {
        seeds: SeedTree::from_seed(7),
        hosts: hosts.clone(),
        latency: LatencyRange { min_us: 1_000, max_us: 5_000 },
        tap: Rc::new(()),
    };
    let arrived = Arrived::default();
    let counted = Rc::clone(&arrived);
    engine::simulate(EngineName::default(), options, async |engine: Rc<dyn engine::Engine>| {
        let arrived = Rc::clone(&counted);
        engine.start(
            "hub",
            Box::new(move |network| {
                Box::pin(async move {
                    let mut listener = network.listen(PORT).await.expect("the port is free");
                    let outboxes = Outboxes::default();
                    while let Ok(stream) = listener.accept().await {
                        serve(stream, &outboxes, star, Rc::clone(&arrived));
                    }
                })
            }),
        );
        for (n, host) in hosts[1..].iter().enumerate() {
            let arrived = Rc::clone(&counted);
            engine.start(
                host,
                Box::new(move |network| {
                    Box::pin(async move {
                        let stream = network.connect(&Address::new("hub", PORT)).await.expect("the hub listens");
                        sleep(Duration::from_millis(100)).await; // by then all are connected
                        spoke(stream, n, star, sleep, arrived).await;
                    })
                }),
            );
        }
        sleep(Duration::from_secs(star.secs + 2)).await;
    });
    arrived.get()
}

fn turmoil(star: Star, tick: Duration) -> u64 {
    let mut builder = turmoil::Builder::new();
    builder.tick_duration(tick).tcp_capacity(4_096).simulation_duration(Duration::from_secs(star.secs + 10));
    builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(5));
    let mut sim = builder.build();
    let arrived = Arrived::default();
    let counted = Rc::clone(&arrived);
    sim.host("hub", move || {
        let arrived = Rc::clone(&counted);
        async move {
            let listener = turmoil::net::TcpListener::bind((IpAddr::from([0, 0, 0, 0]), PORT)).await?;
            let outboxes = Outboxes::default();
            loop {
                let (stream, _) = listener.accept().await?;
                serve(stream, &outboxes, star, Rc::clone(&arrived));
            }
        }
    });
    for n in 0..star.spokes {
        let counted = Rc::clone(&arrived);
        sim.host(format!("spoke{n}"), move || {
            let arrived = Rc::clone(&counted);
            async move {
                let stream = turmoil::net::TcpStream::connect(("hub", PORT)).await?;
                sleep(Duration::from_millis(100)).await;
                spoke(stream, n, star, sleep, arrived).await;
                Ok(())
            }
        });
    }
    sim.client("end", async move {
        sleep(Duration::from_secs(star.secs + 2)).await;
        Ok(())
    });
    sim.run().expect("the simulation ends in time");
    arrived.get()
}

/// The most memory that this process has held, in bytes; zero where the system does not tell.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1_024
}
