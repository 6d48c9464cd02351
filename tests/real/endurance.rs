//! A deployment of processes under load, and disturbances drawn at random: killed, stopped and suspended processes, a broker
//! that restarts or is replaced by another one, connections that are cut or fall silent, and a full disk.
//!
//! No acknowledged row may be missing, no run of a process may miss a row or have one that is not in the database, the logs
//! must name what failed, and the processes that are never restarted must not grow. A write that took effect twice would leave
//! a row in the logs that the second one replaced in the database.
//!
//! `SQUALL_ENDURANCE_SECONDS` makes a test longer than a few seconds, and `SQUALL_ENDURANCE_SEED` draws other disturbances.
//! The order in which they happen is that of the seed. What they meet is not: these are real processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::full_disk::FullDisk;
use crate::load::Load;
use crate::processes::{all_catch_up, no_run_missed_a_row};
use crate::program::{Program, Resources, Site};
use crate::proxy::Proxy;
use crate::run;
use crate::server::{Kind, Server, on_both};

on_both! {
    nothing_is_lost;
}

#[test]
fn nothing_is_lost_over_tcp() {
    run(async {
        let site = Site::new("endurance-tcp", None);
        Endurance::begin(site, None).await.last().await;
    });
}

async fn nothing_is_lost(kind: Kind) {
    let brokers = Brokers::start(kind).await;
    let site = Site::new(&format!("endurance-{kind:?}"), Some(brokers.servers[0].config_at(brokers.proxy.port())));
    Endurance::begin(site, Some(brokers)).await.last().await;
}

/// The length of a test without `SQUALL_ENDURANCE_SECONDS`.
const SHORT: Duration = Duration::from_secs(12);
/// The length from which rates and growth are judged. Before that, caches fill.
const LONG: Duration = Duration::from_secs(600);
/// The time to catch up in. A connection that falls silent is given up after 25 s without an answer to a number that is sent
/// every 5 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// The interval between checks that every instance has caught up.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// The smallest rate of rows in a long test, a second.
const ROWS_A_SECOND: u64 = 200;
/// The processes that are killed and stopped. The other ones show if memory grows.
const RESTARTED: [&str; 3] = ["worker1", "writer1", "master"];
const KEPT: [&str; 2] = ["worker2", "writer2"];

/// Two brokers behind one name.
struct Brokers {
    proxy: Proxy,
    servers: [Server; 2],
    /// The index of the one to which the name leads.
    active: usize,
}

impl Brokers {
    async fn start(kind: Kind) -> Self {
        let servers = [Server::start(kind, None).await, Server::start(kind, None).await];
        Brokers { proxy: Proxy::start(servers[0].port), servers, active: 0 }
    }

    /// Lets the name lead to the other broker, while the connections to the old one stay open.
    fn fail_over(&mut self) {
        self.active = 1 - self.active;
        self.proxy.lead_to(self.servers[self.active].port);
    }
}

/// One of the disturbances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Disturbance {
    Kill,
    Stop,
    Suspend,
    RestartBroker,
    FailOver,
    Cut,
    Silence,
    FillDisk,
}

impl Disturbance {
    /// Returns words that at least one log has if this has happened; `None` if nothing need have failed.
    fn named_in_the_log(self, length: Duration) -> Option<&'static str> {
        match self {
            // The others hear nothing of it over Redis, or it was too short.
            Disturbance::Kill | Disturbance::Suspend => None,
            Disturbance::Stop => Some("\"stopped\""),
            Disturbance::FillDisk => (length >= LONG).then_some("the disk is full"),
            Disturbance::RestartBroker | Disturbance::FailOver | Disturbance::Cut | Disturbance::Silence => {
                Some("\"peer\":\"the broker\"")
            }
        }
    }
}

/// A test under way.
struct Endurance {
    site: Site,
    brokers: Option<Brokers>,
    disk: Option<FullDisk>,
    programs: BTreeMap<&'static str, Program>,
    /// The processes that have ended.
    ended: Vec<Program>,
    load: Load,
    rng: ChaCha8Rng,
    counts: BTreeMap<Disturbance, usize>,
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn length() -> Duration {
    setting("SQUALL_ENDURANCE_SECONDS").map_or(SHORT, Duration::from_secs)
}

impl Endurance {
    async fn begin(mut site: Site, brokers: Option<Brokers>) -> Self {
        // An hour writes about a gigabyte.
        let disk = FullDisk::mount(&mut site, if length() >= LONG { 2_048 } else { 64 });
        if disk.is_none() {
            eprintln!("no disk is filled: this process may not mount one");
        }
        let mut programs = BTreeMap::new();
        for name in RESTARTED.into_iter().chain(KEPT) {
            programs.insert(name, site.start(name).await);
        }
        let seed = setting("SQUALL_ENDURANCE_SEED").unwrap_or(1);
        let (load, rng) = (Load::begin(&site), ChaCha8Rng::seed_from_u64(seed));
        Endurance { site, brokers, disk, programs, ended: Vec::new(), load, rng, counts: BTreeMap::new() }
    }

    /// Runs to the end and judges.
    async fn last(mut self) {
        let length = length();
        let began = Instant::now();
        let mut halfway: BTreeMap<&str, Resources> = BTreeMap::new();
        let mut checked = Instant::now();
        while began.elapsed() < length {
            self.disturb().await;
            self.wait(100..3_000).await;
            if checked.elapsed() >= CHECK_INTERVAL {
                all_catch_up(&self.site, &self.programs, PATIENCE).await;
                checked = Instant::now();
                eprintln!("{} s: {:?} {:?}", began.elapsed().as_secs(), self.counts, self.resources());
                if began.elapsed() >= length / 2 && halfway.is_empty() {
                    halfway = self.resources();
                }
            }
        }
        let took = began.elapsed();
        all_catch_up(&self.site, &self.programs, PATIENCE).await;
        let resources = self.resources();
        let written = self.load.end().await;
        all_catch_up(&self.site, &self.programs, PATIENCE).await;

        let there: BTreeSet<String> = self.site.event_ids().into_iter().collect();
        let missing: Vec<_> = written.event_ids.difference(&there).collect();
        assert!(missing.is_empty(), "acknowledged, and not in the database: {missing:?}");
        let kinds: BTreeSet<String> = self.site.account_data_kinds().into_iter().collect();
        let missing: Vec<_> = written.data.difference(&kinds).collect();
        assert!(missing.is_empty(), "acknowledged, and not in the database: {missing:?}");
        let runs = self.programs.values_mut().chain(&mut self.ended);
        let followed = no_run_missed_a_row(&self.site, runs).await;
        let rows = (written.event_ids.len() + written.data.len()) as u64;
        eprintln!(
            "{} s: {rows} rows acknowledged, {} requests failed, {followed} rows followed; {:?}; {resources:?}",
            took.as_secs(),
            written.failures.len(),
            self.counts
        );
        assert!(followed as u64 > rows, "{followed} of {rows}");
        for disturbance in self.counts.keys() {
            let Some(words) = disturbance.named_in_the_log(length) else { continue };
            let is_named = self.programs.values().chain(&self.ended).any(|program| program.log().contains(words));
            assert!(is_named, "{disturbance:?} happened, and no log has {words}");
        }
        if length >= LONG {
            assert!(rows >= ROWS_A_SECOND * took.as_secs(), "{rows} rows in {took:?}");
            for (name, last) in &resources {
                last.assert_not_above(&halfway[name], name);
            }
        }
    }

    fn resources(&self) -> BTreeMap<&'static str, Resources> {
        KEPT.map(|name| (name, self.programs[name].resources())).into()
    }

    async fn wait(&mut self, ms: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(ms))).await;
    }

    async fn disturb(&mut self) {
        use Disturbance::{Cut, FailOver, FillDisk, Kill, RestartBroker, Silence, Stop, Suspend};
        let of_broker = if self.brokers.is_some() { [RestartBroker, FailOver, Cut, Silence].as_slice() } else { &[] };
        let of_disk = if self.disk.is_some() { [FillDisk].as_slice() } else { &[] };
        let possible = [&[Kill, Stop, Suspend], of_broker, of_disk].concat();
        let disturbance = *possible.choose(&mut self.rng).expect("there are some");
        *self.counts.entry(disturbance).or_default() += 1;
        match disturbance {
            Kill | Stop => {
                let name = *RESTARTED.choose(&mut self.rng).expect("there are some");
                let mut victim = self.programs.remove(name).expect("every program runs");
                if disturbance == Kill {
                    victim.kill();
                } else {
                    assert_eq!(victim.stop("TERM").await.code(), Some(0), "{}", victim.tail());
                }
                self.ended.push(victim);
                self.wait(0..2_000).await;
                self.programs.insert(name, self.site.start(name).await);
            }
            Suspend => {
                let names: Vec<&'static str> = self.programs.keys().copied().collect();
                let name = *names.choose(&mut self.rng).expect("there are some");
                self.programs[name].signal("STOP");
                self.wait(0..8_000).await;
                self.programs[name].signal("CONT");
            }
            RestartBroker | FailOver | Cut | Silence => self.disturb_broker(disturbance).await,
            FillDisk => {
                let disk = self.disk.as_ref().expect("there is one");
                disk.fill();
                let for_ms = self.rng.random_range(500..5_000);
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                disk.free();
            }
        }
    }

    async fn disturb_broker(&mut self, disturbance: Disturbance) {
        let for_ms = self.rng.random_range(100..4_000);
        let brokers = self.brokers.as_mut().expect("there are some");
        match disturbance {
            Disturbance::RestartBroker => {
                let active = &mut brokers.servers[brokers.active];
                active.kill().await;
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                active.start_again().await;
            }
            Disturbance::FailOver => {
                brokers.fail_over();
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                brokers.proxy.cut();
            }
            Disturbance::Cut => brokers.proxy.cut(),
            _ => brokers.proxy.silence(),
        }
    }
}
