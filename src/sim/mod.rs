//! The storm: a deterministic simulator that runs the stack, unmodified, on a seeded network with seeded faults, and
//! asks the judge.

pub mod broker;
pub mod calm;
mod cancellations;
mod client;
pub mod clients;
pub mod clock;
pub mod corpus;
pub mod database;
pub mod defects;
pub mod engine;
pub mod faults;
pub mod plan;
pub mod recorder;
pub mod runner;
pub mod shrink;
pub mod soak;
pub mod strangers;
#[cfg(test)]
mod testing;
pub mod verdict;
mod wire;
pub mod witness;
pub mod workload;
pub mod world;

use crate::judge::Topology;
use crate::protocol::InstanceName;
use crate::streams::{Promise, SOURCES, typing};

/// What the judge must know of the deployment that `plan` describes.
pub fn topology(plan: &plan::Plan) -> Topology {
    let config = world::config_of(plan);
    let topology = Topology::new(plan.topology.hosts().map(InstanceName::from))
        .with_process_expiry_ms(plan.presence.process_expiry_ms);
    let in_memory = (typing::NAME, Promise::Memory);
    let streams = SOURCES.iter().map(|source| (source.name, source.promise)).chain([in_memory]);
    streams
        .fold(topology, |topology, (stream, promise)| topology.with_stream(stream, promise, config.writers_of(stream)))
}
