//! Faults: what goes wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that goes wrong at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultEntry {
    /// When, in simulated milliseconds since the start.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
}

/// What goes wrong, between or on hosts given by name. Whatever lasts is healed after `for_ms` milliseconds, and at the
/// end of the storm at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Packets one way take another time than usual: a detour, a congested link.
    Latency {
        /// Whose packets.
        from: String,
        /// To whom.
        to: String,
        /// The shortest time, in microseconds.
        min_us: u64,
        /// The longest time, in microseconds.
        max_us: u64,
        /// For how long.
        for_ms: u64,
    },
    /// One connection between two hosts is reset at both ends: a proxy is restarted, a middlebox drops its state.
    Cut {
        /// One host.
        a: String,
        /// The other.
        b: String,
    },
    /// Every connection of a client to a server is reset some time after it was opened: a broken middlebox, or a
    /// message on which the client fails each time. The client's back-off has to survive it.
    Flap {
        /// Who connects.
        client: String,
        /// To whom.
        server: String,
        /// How long each connection lives, in milliseconds.
        after_ms: u64,
        /// For how long this goes on.
        for_ms: u64,
    },
    /// Packets do not arrive and are sent again and again: an unplugged cable, a lost route. Neither end is told.
    Partition {
        /// Whose packets.
        from: String,
        /// To whom.
        to: String,
        /// Whether the other way is broken too.
        both: bool,
        /// For how long.
        for_ms: u64,
    },
    /// A host is gone at once, without a word to its peers, and comes back with nothing but the database.
    PowerCut {
        /// Which host.
        host: String,
        /// How long it stays down.
        for_ms: u64,
    },
    /// An instance is stopped gracefully and started again: an upgrade, a change of configuration.
    Restart {
        /// Which host.
        host: String,
        /// How long it stays down.
        for_ms: u64,
    },
    /// An instance reads slowly from all its connections, until its peers' buffers are full: a starved process.
    SlowConsumer {
        /// Which host.
        host: String,
        /// How much it reads at once.
        bytes: usize,
        /// How long it pauses after that, in milliseconds.
        pause_ms: u64,
        /// For how long this goes on.
        for_ms: u64,
    },
}

/// A kind of fault. Every seed switches some of them off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// [`Fault::Latency`].
    Latency,
    /// [`Fault::Cut`].
    Cut,
    /// [`Fault::Flap`].
    Flap,
    /// [`Fault::Partition`].
    Partition,
    /// [`Fault::PowerCut`].
    PowerCut,
    /// [`Fault::Restart`].
    Restart,
    /// [`Fault::SlowConsumer`].
    SlowConsumer,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 7] = [
        Family::Latency,
        Family::Cut,
        Family::Flap,
        Family::Partition,
        Family::PowerCut,
        Family::Restart,
        Family::SlowConsumer,
    ];

    /// The family's name, as in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Family::Latency => "latency",
            Family::Cut => "cut",
            Family::Flap => "flap",
            Family::Partition => "partition",
            Family::PowerCut => "power_cut",
            Family::Restart => "restart",
            Family::SlowConsumer => "slow_consumer",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Fault {
    /// The family it belongs to.
    pub fn family(&self) -> Family {
        match self {
            Fault::Latency { .. } => Family::Latency,
            Fault::Cut { .. } => Family::Cut,
            Fault::Flap { .. } => Family::Flap,
            Fault::Partition { .. } => Family::Partition,
            Fault::PowerCut { .. } => Family::PowerCut,
            Fault::Restart { .. } => Family::Restart,
            Fault::SlowConsumer { .. } => Family::SlowConsumer,
        }
    }

    /// The hosts it is about: one, or two of which the first is `from`, `a` or `client`.
    pub fn hosts(&self) -> (&str, Option<&str>) {
        match self {
            Fault::Latency { from, to, .. } | Fault::Partition { from, to, .. } => (from, Some(to)),
            Fault::Cut { a, b } => (a, Some(b)),
            Fault::Flap { client, server, .. } => (client, Some(server)),
            Fault::PowerCut { host, .. } | Fault::Restart { host, .. } | Fault::SlowConsumer { host, .. } => {
                (host, None)
            }
        }
    }

    /// How long it lasts, in milliseconds; 0 if it is over at once.
    pub fn for_ms(&self) -> u64 {
        match self {
            Fault::Cut { .. } => 0,
            Fault::Latency { for_ms, .. }
            | Fault::Flap { for_ms, .. }
            | Fault::Partition { for_ms, .. }
            | Fault::PowerCut { for_ms, .. }
            | Fault::Restart { for_ms, .. }
            | Fault::SlowConsumer { for_ms, .. } => *for_ms,
        }
    }
}
