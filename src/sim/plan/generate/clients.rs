//! Draws the clients.
//!
//! Clients find what replication does to users only if they differ: one always waits for news and another one asks now and
//! then, one stays with an instance and another one moves between instances that are not equally far.

use rand::RngExt;
use rand::seq::SliceRandom;

use super::population::USERS;
use crate::sim::plan::{ClientPlan, DEVICES, Deployment, Plan};
use squall_env::SeedTree;

/// The number of clients in a wide world.
const WIDE: [u32; 6] = [0, 1, 2, 3, 4, 6];

/// Draws the clients of `plan`. Their order has no meaning.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan) -> Vec<ClientPlan> {
    let mut rng = seeds.rng();
    let count = if plan.scenario.is_wide() { WIDE[rng.random_range(0..WIDE.len())] } else { rng.random_range(2..=3) };
    let mut clients: Vec<ClientPlan> =
        (0..count).map(|ordinal| client(&seeds.child(ordinal), ordinal, &plan.topology)).collect();
    clients.sort_by_key(|client| (client.user, client.device));
    clients.dedup_by_key(|client| (client.user, client.device));
    clients
}

fn client(seeds: &SeedTree, ordinal: u32, deployment: &Deployment) -> ClientPlan {
    let mut rng = seeds.rng();
    let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
    let move_per_mille = pick(&[0, 50, 300, 1_000]) as u32;
    let lost_per_mille = pick(&[0, 20, 200]) as u32;
    let timeout_ms = pick(&[0, 1_000, 10_000, 30_000]);
    // The first one always waits for news.
    let pause_ms = if ordinal == 0 { 200 } else { pick(&[200, 1_000, 4_000]) };
    let from_ms = pick(&[0, 1_000, 1_000, 20_000]);
    let mut hosts: Vec<String> = deployment.hosts().map(str::to_owned).collect();
    hosts.shuffle(&mut rng);
    hosts.truncate(rng.random_range(1..=hosts.len()));
    ClientPlan {
        user: rng.random_range(0..USERS),
        device: rng.random_range(0..DEVICES),
        hosts,
        move_per_mille,
        lost_per_mille,
        timeout_ms: if ordinal == 0 { timeout_ms.max(1_000) } else { timeout_ms },
        pause_ms,
        from_ms,
    }
}
