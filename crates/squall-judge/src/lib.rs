//! The judge: the properties that replication must have, checked over a stream of observations.
//!
//! A deployment of [Synapse](https://github.com/element-hq/synapse), or of Squall, is many processes over one database.
//! Each row has one writer, and every other process follows it. The judge receives what was observed of such a deployment,
//! in order, and returns each violation of a property: a row that was missed, a position that went back, a reconnect that
//! came too early. The observations may come from a simulation, from real processes or from a recording.
//!
//! None of them is the stack's word about its own work: commits come from the database, announcements from the network, and
//! applied rows from consumers registered on each instance. The judge decides what is due by its own code (`due`), never by
//! a function of the stack.
//!
//! # Example
//!
//! A worker follows the account data that the master writes. Two rows are committed, and only the second is applied:
//!
//! ```
//! use squall_judge::{Judge, Observation, SimTime, Topology};
//! use squall_protocol::rows::{AccountDataRow, Row};
//! use squall_protocol::{Delivery, InstanceName, StreamName, Token};
//!
//! let stream = StreamName::from("account_data");
//! let writer = InstanceName::from("master");
//! let instance = InstanceName::from("worker");
//! let topology =
//!     Topology::new([instance.clone()]).with_stream(stream.clone(), Delivery::Keyed, [writer.clone()]);
//!
//! let row = |kind: &str| {
//!     Row::AccountData(AccountDataRow { user_id: "@user:example.org".into(), room_id: None, kind: kind.into() })
//! };
//! let committed = |token, row| Observation::Committed {
//!     stream: stream.clone(),
//!     writer: writer.clone(),
//!     token: Token(token),
//!     row,
//! };
//! let following = Observation::Following {
//!     instance: instance.clone(),
//!     stream: stream.clone(),
//!     writer: writer.clone(),
//!     position: Token(0),
//! };
//! let applied = Observation::Applied {
//!     instance,
//!     stream: stream.clone(),
//!     writer: writer.clone(),
//!     token: Token(2),
//!     rows: vec![row("m.push_rules")],
//! };
//!
//! let mut judge = Judge::new(topology);
//! judge.observe(SimTime(0), &following);
//! judge.observe(SimTime(10), &committed(1, row("m.direct")));
//! judge.observe(SimTime(20), &committed(2, row("m.push_rules")));
//! judge.observe(SimTime(30), &applied);
//!
//! let [(at, violation)] = judge.violations() else { panic!("one violation") };
//! assert_eq!(*at, SimTime(30));
//! assert_eq!(violation.fingerprint(), "no_missed_rows/account_data/missed");
//! assert_eq!(violation.to_string(), "account_data of master on worker: went from 0 to 2 without the rows of 1");
//! ```
//!
//! # Modules
//!
//! - [`invariants`]: one property per file. To add one, write its file and register it with one line in
//!   `invariants/mod.rs`.
//! - [`observation`]: the input of the judge, with the witness of each observation.
//! - [`topology`]: the deployment: its instances, and the writers of each stream.
//! - [`audit`]: the rules for recordings and live deployments of Synapse, which have no witness but the traffic.

#![forbid(unsafe_code)]

pub mod audit;
mod disturbances;
mod due;
mod hash;
mod invariant;
pub mod invariants;
mod judge;
mod marks;
mod missed_bursts;
mod names;
pub mod observation;
mod pending;
mod present;
mod reads;
mod scene;
mod set_up;
pub mod topology;
mod trace;
mod violation;

pub use invariant::Invariant;
pub use invariants::Violation;
pub use judge::{Judge, VIOLATIONS_MAX};
pub use observation::{Answer, Client, Device, Kind, Line, Observation, RequestFailure, Role, SimTime, Task};
pub use pending::{Pending, PendingReason};
pub use scene::Scene;
pub use topology::{FollowerKey, NAME_CHECK, PUBLICATIONS, SUBSCRIPTION, Topology};
