//! Faults: what goes wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most that a slow writer's transaction may be delayed, in milliseconds. The calm waits for it.
pub const DELAY_MS_MAX: u64 = 10_000;
/// The most that a slow database may add on either side of a transaction, in milliseconds. The calm waits for it.
pub const EXTRA_MS_MAX: u64 = 2_000;

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
/// end of the storm at the latest. The network first, then the processes.
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
    /// Every HTTP connection to a server is reset some time after it was opened, often when what was asked for is done and
    /// the answer is on its way: a proxy that times out. Whoever asked cannot know, and asks again.
    LostReply {
        /// Who is asked.
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
    /// One end of a replication connection is gone while the other goes on believing in it: a firewall that lost its
    /// state resets one side and drops all that the other still sends. No kernel gives up within the time of a run, so
    /// the survivor has to notice by its pings. When the fault is over, what the survivor sends is answered with a
    /// reset; but where it outlasts the storm, never: no calm brings back what a firewall forgot, and it is the
    /// connection that has to go.
    HalfOpen {
        /// Whose end is gone.
        gone: String,
        /// Whose end stays.
        survivor: String,
        /// For how long nothing is answered.
        for_ms: u64,
    },
    /// Packets one way trickle: a modem, a saturated link. What is queued when it ends comes at the usual speed.
    SlowDrip {
        /// Whose packets.
        from: String,
        /// To whom.
        to: String,
        /// What the link carries, headers included, in bytes a second; at least one.
        bytes_per_sec: u64,
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
    /// Instances are stopped gracefully and started again, one after the other: the upgrade of a whole deployment. The
    /// next one's turn comes only when the last one is up again and the pause is over; one that is down already is
    /// passed over.
    RollingRestart {
        /// Which hosts, in this order.
        hosts: Vec<String>,
        /// How long each stays down, in milliseconds from when it is asked to stop; longer if it takes longer to stop.
        down_ms: u64,
        /// How long to wait between one and the next, in milliseconds.
        pause_ms: u64,
    },
    /// A process is stopped in its tracks and goes on later, with all its timers overdue: SIGSTOP, a paused virtual
    /// machine, a host that swaps. Its kernel goes on accepting and acknowledging, so that its peers can tell only by
    /// its silence.
    Freeze {
        /// Which host's process.
        host: String,
        /// For how long.
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
    /// Transactions that write rows take effect late, and in any order: a lock, a busy disk, a deadlock. Their ids were
    /// allocated long before, and hold the position back (Synapse #8499, #19795, #19800).
    SlowWriter {
        /// Which host's transactions.
        host: String,
        /// The least that each is delayed, in milliseconds.
        delay_ms_min: u64,
        /// The most that each is delayed, in milliseconds; [`DELAY_MS_MAX`] at the most.
        delay_ms_max: u64,
        /// How many of a thousand are rolled back for good in the end, so that their ids have no rows.
        rollback_per_mille: u32,
        /// For how long transactions that are asked for meet this.
        for_ms: u64,
    },
    /// Every transaction takes longer: an overloaded database, a long way to it.
    SlowDatabase {
        /// Which host's transactions; everybody's if not given.
        host: Option<String>,
        /// The least that is added before a transaction takes effect, and again until its caller knows, in
        /// milliseconds.
        extra_ms_min: u64,
        /// The most that is added on either side, in milliseconds; [`EXTRA_MS_MAX`] at the most.
        extra_ms_max: u64,
        /// For how long transactions that are asked for meet this.
        for_ms: u64,
    },
    /// No transaction takes effect and none is answered until it is over: a lock on everything, a failover.
    StalledDatabase {
        /// Which host's transactions; everybody's if not given.
        host: Option<String>,
        /// For how long.
        for_ms: u64,
    },
    /// Transactions fail: half of them before they ran, as when nobody answers, half of them after, as when the database
    /// rolls them back.
    FailingDatabase {
        /// Which host's transactions.
        host: String,
        /// How many of a thousand fail.
        per_mille: u32,
        /// For how long transactions that are asked for meet this.
        for_ms: u64,
    },
    /// The reads of rows fail, for catch-up and for streaming, and nothing else: whatever a connection's set-up waits
    /// for fails while the connection itself is well (Synapse #4749).
    FailingHandlers {
        /// Which host's reads.
        host: String,
        /// How many of a thousand fail.
        per_mille: u32,
        /// For how long reads that are asked for meet this.
        for_ms: u64,
    },
    /// The connection to the database breaks at the wrong moment: the transaction commits, and whoever asked for it is
    /// told an error, before the commit or after it.
    LostAcknowledgement {
        /// Which host's transactions.
        host: String,
        /// How many of a thousand.
        per_mille: u32,
        /// For how long transactions that are asked for meet this.
        for_ms: u64,
    },
    /// Requests are dropped in the middle, at any of their awaits: clients that go away (Synapse #19800).
    CancelledRequests {
        /// The host that carries them out.
        host: String,
        /// How many of a thousand.
        per_mille: u32,
        /// For how long requests that begin meet this.
        for_ms: u64,
    },
    /// The peers of an instance are of a newer version: now and then they tell it of a stream that it does not have, or of a
    /// row in a shape that it does not know.
    Strangers {
        /// The host whose connections bring that.
        host: String,
        /// How many of a thousand reads bring something of the kind.
        per_mille: u32,
        /// For how long.
        for_ms: u64,
    },
    /// The rows of one stream cannot be read any more on one host, neither to send them nor to catch up: one of them is
    /// damaged. Nothing heals that, not even the calm. The stream is excused from then on, and no other one.
    BrokenStream {
        /// The host.
        host: String,
        /// The stream, one of those in the database.
        stream: String,
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
    /// [`Fault::LostReply`].
    LostReply,
    /// [`Fault::Partition`].
    Partition,
    /// [`Fault::HalfOpen`].
    HalfOpen,
    /// [`Fault::SlowDrip`].
    SlowDrip,
    /// [`Fault::PowerCut`].
    PowerCut,
    /// [`Fault::Restart`].
    Restart,
    /// [`Fault::RollingRestart`].
    RollingRestart,
    /// [`Fault::Freeze`].
    Freeze,
    /// [`Fault::SlowConsumer`].
    SlowConsumer,
    /// [`Fault::SlowWriter`].
    SlowWriter,
    /// [`Fault::SlowDatabase`].
    SlowDatabase,
    /// [`Fault::StalledDatabase`].
    StalledDatabase,
    /// [`Fault::FailingDatabase`].
    FailingDatabase,
    /// [`Fault::FailingHandlers`].
    FailingHandlers,
    /// [`Fault::LostAcknowledgement`].
    LostAcknowledgement,
    /// [`Fault::CancelledRequests`].
    CancelledRequests,
    /// [`Fault::BrokenStream`].
    BrokenStream,
    /// [`Fault::Strangers`].
    Strangers,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 21] = [
        Family::Latency,
        Family::Cut,
        Family::Flap,
        Family::LostReply,
        Family::Partition,
        Family::HalfOpen,
        Family::SlowDrip,
        Family::PowerCut,
        Family::Restart,
        Family::RollingRestart,
        Family::Freeze,
        Family::SlowConsumer,
        Family::SlowWriter,
        Family::SlowDatabase,
        Family::StalledDatabase,
        Family::FailingDatabase,
        Family::FailingHandlers,
        Family::LostAcknowledgement,
        Family::CancelledRequests,
        Family::BrokenStream,
        Family::Strangers,
    ];

    /// The family's name, as in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Family::Latency => "latency",
            Family::Cut => "cut",
            Family::Flap => "flap",
            Family::LostReply => "lost_reply",
            Family::Partition => "partition",
            Family::HalfOpen => "half_open",
            Family::SlowDrip => "slow_drip",
            Family::PowerCut => "power_cut",
            Family::Restart => "restart",
            Family::RollingRestart => "rolling_restart",
            Family::Freeze => "freeze",
            Family::SlowConsumer => "slow_consumer",
            Family::SlowWriter => "slow_writer",
            Family::SlowDatabase => "slow_database",
            Family::StalledDatabase => "stalled_database",
            Family::FailingDatabase => "failing_database",
            Family::FailingHandlers => "failing_handlers",
            Family::LostAcknowledgement => "lost_acknowledgement",
            Family::CancelledRequests => "cancelled_requests",
            Family::BrokenStream => "broken_stream",
            Family::Strangers => "strangers",
        }
    }
}

impl Family {
    /// Whether it can befall any host, whatever runs there: not only an instance.
    pub fn is_of_machines(self) -> bool {
        matches!(
            self,
            Family::Latency
                | Family::Cut
                | Family::Flap
                | Family::Partition
                | Family::HalfOpen
                | Family::SlowDrip
                | Family::PowerCut
                | Family::Restart
                | Family::Freeze
                | Family::SlowConsumer
        )
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
            Fault::LostReply { .. } => Family::LostReply,
            Fault::Partition { .. } => Family::Partition,
            Fault::HalfOpen { .. } => Family::HalfOpen,
            Fault::SlowDrip { .. } => Family::SlowDrip,
            Fault::PowerCut { .. } => Family::PowerCut,
            Fault::Restart { .. } => Family::Restart,
            Fault::RollingRestart { .. } => Family::RollingRestart,
            Fault::Freeze { .. } => Family::Freeze,
            Fault::SlowConsumer { .. } => Family::SlowConsumer,
            Fault::SlowWriter { .. } => Family::SlowWriter,
            Fault::SlowDatabase { .. } => Family::SlowDatabase,
            Fault::StalledDatabase { .. } => Family::StalledDatabase,
            Fault::FailingDatabase { .. } => Family::FailingDatabase,
            Fault::FailingHandlers { .. } => Family::FailingHandlers,
            Fault::LostAcknowledgement { .. } => Family::LostAcknowledgement,
            Fault::CancelledRequests { .. } => Family::CancelledRequests,
            Fault::BrokenStream { .. } => Family::BrokenStream,
            Fault::Strangers { .. } => Family::Strangers,
        }
    }

    /// The hosts it is about: none if it is about all of them, one, or two of which the first is `from`, `a`, `gone` or
    /// `client`; for a rolling restart all of them.
    pub fn hosts(&self) -> Vec<&str> {
        match self {
            Fault::Latency { from, to, .. } | Fault::Partition { from, to, .. } | Fault::SlowDrip { from, to, .. } => {
                vec![from, to]
            }
            Fault::Cut { a, b } => vec![a, b],
            Fault::Flap { client, server, .. } => vec![client, server],
            Fault::LostReply { server, .. } => vec![server],
            Fault::HalfOpen { gone, survivor, .. } => vec![gone, survivor],
            Fault::PowerCut { host, .. }
            | Fault::Restart { host, .. }
            | Fault::Freeze { host, .. }
            | Fault::SlowConsumer { host, .. }
            | Fault::SlowWriter { host, .. }
            | Fault::FailingDatabase { host, .. }
            | Fault::FailingHandlers { host, .. }
            | Fault::LostAcknowledgement { host, .. }
            | Fault::CancelledRequests { host, .. }
            | Fault::Strangers { host, .. }
            | Fault::BrokenStream { host, .. } => vec![host],
            Fault::SlowDatabase { host, .. } | Fault::StalledDatabase { host, .. } => {
                host.iter().map(String::as_str).collect()
            }
            Fault::RollingRestart { hosts, .. } => hosts.iter().map(String::as_str).collect(),
        }
    }

    /// When each host that it takes down is down, if nobody takes longer than planned to stop: host, from and until, in
    /// milliseconds since the fault began.
    pub fn outages(&self) -> Vec<(&str, u64, u64)> {
        match self {
            Fault::PowerCut { host, for_ms } | Fault::Restart { host, for_ms } => vec![(host, 0, *for_ms)],
            Fault::RollingRestart { hosts, down_ms, pause_ms } => {
                let begin_ms = (0..).map(|place: u64| place.saturating_mul(down_ms.saturating_add(*pause_ms)));
                hosts
                    .iter()
                    .zip(begin_ms)
                    .map(|(host, at_ms)| (&**host, at_ms, at_ms.saturating_add(*down_ms)))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// How long it lasts, in milliseconds; 0 if it is over at once, or never.
    pub fn for_ms(&self) -> u64 {
        match self {
            Fault::Cut { .. } | Fault::BrokenStream { .. } => 0,
            Fault::RollingRestart { .. } => self.outages().last().map_or(0, |(_, _, until_ms)| *until_ms),
            Fault::Latency { for_ms, .. }
            | Fault::Flap { for_ms, .. }
            | Fault::LostReply { for_ms, .. }
            | Fault::Partition { for_ms, .. }
            | Fault::HalfOpen { for_ms, .. }
            | Fault::SlowDrip { for_ms, .. }
            | Fault::PowerCut { for_ms, .. }
            | Fault::Restart { for_ms, .. }
            | Fault::Freeze { for_ms, .. }
            | Fault::SlowConsumer { for_ms, .. }
            | Fault::SlowWriter { for_ms, .. }
            | Fault::SlowDatabase { for_ms, .. }
            | Fault::StalledDatabase { for_ms, .. }
            | Fault::FailingDatabase { for_ms, .. }
            | Fault::FailingHandlers { for_ms, .. }
            | Fault::LostAcknowledgement { for_ms, .. }
            | Fault::CancelledRequests { for_ms, .. }
            | Fault::Strangers { for_ms, .. } => *for_ms,
        }
    }
}
