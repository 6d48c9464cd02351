//! Following a live deployment: every payload on its broker, judged as it comes by the [audit](squall_judge::audit).
//!
//! [`listen`] stays subscribed to the broker and gives each payload to a [`Follower`]. The follower turns it into a line of
//! a recording, writes the line if there is a file for it, and lets the audit check it. Therefore an audit of the recording
//! has the findings of the live traffic. A [`Watcher`] receives the follower's [events](Event).
//!
//! The follower concludes nothing from payloads it may have missed. It pings the broker once a second, and the audit's time
//! advances only as far as the answers prove that every payload was received. A time without a connection, or in which the
//! broker or this process hung, is a gap.
//!
//! The queue of unjudged payloads is bounded (`LIMITS` of the listener), and so are the audit's memory
//! ([`bounds`](squall_judge::audit::bounds)) and the number of findings of one kind that are reported one by one
//! ([`Follower`]).

mod event;
mod follower;
mod journal;
mod listener;
mod metrics;
mod writers;

pub use event::{Event, Unheard};
pub use follower::{
    FindingsOfKind, FindingsOfOrigin, Follower, HEARD_WITHIN_MS, REPORT_WINDOW_MS, REPORTED_MAX, Watcher,
};
pub use journal::Journal;
pub use listener::{Refused, Target, listen};
pub use metrics::FollowMetrics;
pub use writers::WriterState;
