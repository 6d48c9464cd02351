//! The audit: judges real replication traffic from the traffic alone.
//!
//! The [invariants](super::invariants) have witnesses in the database and on every instance. A client of Redis, or one end
//! of a TCP connection, has none of those. It knows which payloads were sent, in which order, and mostly when. An [`Audit`]
//! receives one [`Payload`] after the other, from a [`Capture`] or live, and checks each against the [`rules`], which are
//! pure functions of the payloads. It also learns that time passed without a payload, and that payloads may have been
//! missed. No violation is reported that a missed payload could explain.
//!
//! A finding says what the traffic shows, not what resulted from it: rows that followers dropped may have reached them in
//! another way.

#[expect(clippy::module_inception, reason = "the file is named after the one thing in it")]
mod audit;
pub mod bounds;
pub mod capture;
mod class;
mod connections;
mod finding;
mod gaps;
mod ignored;
mod origin;
mod payload;
mod preceding;
pub mod report;
mod rule;
pub mod rules;
mod sample;
mod settled;
mod streams;
mod tally;
#[cfg(test)]
mod testing;
mod unsent;

pub use audit::Audit;
pub use bounds::{Bound, Exceeded};
pub use capture::{Capture, CaptureError, Entry, Malformed, Recorded};
pub use class::Class;
pub use gaps::{GAPS_KEPT_MAX, Gap, Gaps};
pub use ignored::{IgnoredKind, UnknownKind};
pub use origin::{Origin, Writers};
pub use payload::{Payload, Transport};
pub use preceding::{PayloadKind, Suspicion};
pub use report::Report;
pub use rules::{Finding, Violation};
pub use tally::{DatedRow, OriginTally, Tally};
