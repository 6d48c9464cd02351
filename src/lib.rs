//! Squall: Synapse's replication layer in Rust, a judge of replication, and a simulator that tests the one by the other.
//!
//! [Synapse](https://github.com/element-hq/synapse) runs as many processes over one database, which keep each other up to
//! date by streams of rows with positions. Squall is three things:
//!
//! - **the stack**: that replication layer, wire-compatible with Synapse 1.163: the line protocol over TCP, Redis
//!   pub/sub, HTTP replication, and one shared database;
//! - **the judge** ([`judge`]): the properties that replication must have, checked against observations of a simulated
//!   run, of a recording, or of a live deployment;
//! - **the storm** (`sim`): a deterministic simulator that runs the unmodified stack on a seeded network with seeded
//!   faults, and asks the judge.
//!
//! # Three doors
//!
//! *I run Synapse.* The command `squall follow` judges a live deployment on its Redis broker, and `squall audit` judges a
//! recording. In the library these are `follow` and [`judge::audit`].
//!
//! *I write a distributed service on tokio.* The simulated network (the crate `squall-netsim`) gives the hosts of a simulation
//! ordinary byte streams, behind [`env::Network`]. It injects cuts, partitions, power cuts and freezes, and repeats a run
//! from its seed.
//!
//! *I change replication.* A seed gives a plan, a plan gives a run, and a run gives a verdict. A plan that fails is shrunk
//! to the smallest plan that fails in the same way.
//!
//! # Example
//!
//! A plan is plain data. This one has six hosts, a minute of operations, and faults. Here the faults are left out, so that
//! the run is short:
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
//! use squall::sim::plan::{Plan, Scenario};
//! use squall::sim::runner;
//!
//! let mut plan = Plan::generate(Scenario::Storm, 1);
//! plan.faults.clear();
//!
//! let verdict = runner::judge(&plan);
//! assert!(verdict.passed());
//! assert!(verdict.exercised["no_missed_rows"] > 0);
//!
//! // The same plan gives the same run, down to the last observation.
//! assert_eq!(verdict.trace_hash, runner::judge(&plan).trace_hash);
//! ```
//!
//! # Modules
//!
//! A committed row passes through the modules of the stack in this order: [`store`] (the database), [`streams`] (the
//! sources of rows), [`replication`] (sending, following and catching up), [`transport`] (bytes), and at the peer back
//! through [`transport`] and [`replication`] to [`caches`], [`presence`] and [`sync`]. An [`instance`] is a process with all
//! of them. [`protocol`] is the grammar of the wire. [`mod@env`] is the set of interfaces that a process is given: network,
//! clock, randomness, tasks.
//!
//! # Features
//!
//! | feature | content |
//! |---|---|
//! | none | the stack over TCP, and the judge |
//! | `redis` | replication over a Redis broker |
//! | `serve` | an instance as a process, with metrics and TLS; `follow` |
//! | `sim` (default) | the simulator and the command line |
//! | `turmoil` | the simulator's second engine, for cross-checks |
//! | `services` | the tests that need a real `redis-server` |
//!
//! Only `turmoil` links turmoil. No feature needs a compiler flag.

#![forbid(unsafe_code)]

pub mod caches;
#[cfg(feature = "sim")]
pub mod cli;
mod errors;
#[cfg(feature = "serve")]
pub mod follow;
pub mod instance;
pub mod limits;
#[cfg(feature = "serve")]
pub mod metrics;
pub mod observer;
pub mod presence;
mod private_file;
pub mod replication;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod streams;
pub mod sync;
pub mod tasks;
pub mod transport;

pub use squall_env as env;
pub use squall_judge as judge;
#[cfg(feature = "sim")]
pub use squall_netsim as netsim;
pub use squall_protocol as protocol;
