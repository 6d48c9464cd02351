//! The storm: a deterministic simulator that runs the stack, unmodified, on a seeded network with seeded faults, and
//! asks the judge.

pub mod calm;
pub mod clock;
pub mod corpus;
pub mod database;
pub mod engine;
pub mod faults;
pub mod plan;
pub mod recorder;
pub mod runner;
pub mod soak;
#[cfg(test)]
mod testing;
pub mod verdict;
pub mod witness;
pub mod workload;
pub mod world;

use crate::judge::Topology;
use crate::protocol::InstanceName;
use crate::streams::{Promise, events, typing};

/// What the judge must know of the deployment that `plan` describes.
pub fn topology(plan: &plan::Plan) -> Topology {
    let deployment = &plan.topology;
    Topology::new(deployment.hosts().map(InstanceName::from))
        .with_stream(events::NAME, Promise::Log, deployment.events_writers.iter().map(|name| name.as_str().into()))
        .with_stream(typing::NAME, Promise::Memory, [deployment.typing_writer.as_str().into()])
}
