//! Observations: the input of the judge.
//!
//! Every variant names its witness. The witness is never the stack itself: a replication layer that believes that it
//! delivered a row is exactly the one that lost it unnoticed.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use strum::{EnumDiscriminants, VariantArray};

use squall_protocol::rows::Row;
use squall_protocol::{Cached, InstanceName, StreamName, SyncToken, Token, TypingNews};

/// The time of an observation, in milliseconds since the run (or the recording) began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SimTime(pub u64);

impl SimTime {
    /// Returns the milliseconds since `earlier`; 0 if it is not earlier.
    pub fn ms_since(self, earlier: SimTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}

/// A device as instances announce it to the presence writer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Device {
    /// The user.
    pub user: String,
    /// The device, if it is known.
    pub device: Option<String>,
}

/// A client that syncs: a device of a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Client {
    /// The user.
    pub user_id: String,
    /// The device.
    pub device_id: String,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user_id, self.device_id)
    }
}

/// The role of one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The end that connected: it follows.
    Client,
    /// The end that accepted: it writes, or is the master.
    Server,
    /// The end that publishes at a broker: every instance reads its lines.
    Publisher,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Client => "client",
            Role::Server => "server",
            Role::Publisher => "publisher",
        })
    }
}

/// The parts of a line that the judge needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are those of the commands")]
pub enum Line {
    /// A row. Of several rows with one token, only the last line has the token.
    Rdata { stream: StreamName, writer: InstanceName, token: Option<Token> },
    /// A position.
    Position { stream: StreamName, writer: InstanceName, prev: Token, new: Token },
    /// Another command, by its name.
    Other(&'static str),
    /// A line that is no command.
    Nonsense,
}

impl Line {
    /// Returns the name of the command.
    pub fn command(&self) -> &'static str {
        match self {
            Line::Rdata { .. } => "RDATA",
            Line::Position { .. } => "POSITION",
            Line::Other(name) => name,
            Line::Nonsense => "a line that is no command",
        }
    }
}

/// The answer to a client's sync.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The token for the next request.
    pub next: SyncToken,
    /// The ids of events, in the order of the answer.
    pub events: Vec<(Token, String)>,
    /// The ids of messages to the device, in the order of the answer.
    pub to_device: Vec<(Token, String)>,
    /// Receipts, account data and presence, each in the order of the answer.
    pub rows: Vec<(Token, Row)>,
    /// The typing users.
    pub typing: TypingNews,
}

/// A kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// The label of the kind, for the text of a violation.
    pub label: &'static str,
    /// True if there is a task for each request of a user, so that users decide how many run at once.
    pub per_request: bool,
}

impl Hash for Task {
    /// Hashes the label alone, which determines `per_request`: both are constants of the kind.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.label.hash(state);
    }
}

/// The way in which a client's request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestFailure {
    /// Another instance refused the request as a wrong one: its status was below 500.
    Refused {
        /// The status.
        status: u16,
    },
    /// Another instance answered that the request had succeeded, and the answer cannot be read.
    Unreadable,
    /// Another instance could not do it: its status was 500 or above.
    Unavailable {
        /// The status.
        status: u16,
    },
    /// No answer came: there was no connection, or it was lost, or the time was over.
    Lost,
    /// The request took effect, and its rows did not arrive at the client's instance in time.
    NotSeen,
    /// The client's own instance writes the stream, and the write failed.
    NotWritten,
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestFailure::Refused { status } => write!(f, "it was refused with the status {status}"),
            RequestFailure::Unreadable => f.write_str("its answer was 200 and cannot be read"),
            RequestFailure::Unavailable { status } => write!(f, "it was answered with the status {status}"),
            RequestFailure::Lost => f.write_str("it was not answered"),
            RequestFailure::NotSeen => f.write_str("its rows did not arrive"),
            RequestFailure::NotWritten => f.write_str("it was not written"),
        }
    }
}

/// An event of a run.
///
/// Fields mean the same in every variant. `instance` is the instance at which it happened. `boot` numbers that instance's
/// processes upwards. `writer` is the instance that wrote the rows of `stream`. `attempt` identifies one connection attempt,
/// and the connection that it led to, within the whole run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EnumDiscriminants)]
#[strum_discriminants(name(Kind), derive(VariantArray), doc = "The kind of an observation.")]
#[expect(missing_docs, reason = "the fields mean the same in every variant and are explained once, above")]
pub enum Observation {
    /// A process began. Witness: the runner.
    Started { instance: InstanceName, boot: u64 },
    /// A process was asked to stop gracefully. Witness: the runner.
    AskedToStop { instance: InstanceName, boot: u64 },
    /// A process ended, in any way. Witness: the runner.
    Stopped { instance: InstanceName, boot: u64 },

    /// A row of a stream in the database was committed. All rows of a token come before any of them is applied. Witness:
    /// the database wrapper.
    Committed { stream: StreamName, writer: InstanceName, token: Token, row: Row },
    /// A row of a keyed stream in the database was removed (not overwritten). Witness: the database wrapper.
    Removed { stream: StreamName, writer: InstanceName, token: Token, row: Row },
    /// Something was written to the database that is unique to one request of one client. Witness: the database wrapper.
    TookEffect { place: String, words: String },
    /// A stream in memory changed, as `row` says. Witness: the consumer registered on its writer.
    Changed { stream: StreamName, writer: InstanceName, boot: u64, token: Token, row: Row },

    /// An instance queried the database for rows of a stream, to send them or to catch up, and got `rows`. Witness: the
    /// database wrapper, by SQLite's own count.
    Fetched { instance: InstanceName, stream: StreamName, rows: u64 },

    /// An instance follows a writer from `position` on; once per boot, stream and writer. Witness of this and the next
    /// three: the consumer registered on the follower.
    Following { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },
    /// All the rows of one token were applied, and `token` is the position now.
    Applied { instance: InstanceName, stream: StreamName, writer: InstanceName, token: Token, rows: Vec<Row> },
    /// The position moved, or was confirmed, without rows.
    Positioned { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },
    /// Streams in memory: all that was applied before is void, and `position` is the position now.
    Reset { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },

    /// A client began to read `what`. `read` identifies the read within the whole run; one that fails never returns.
    /// Witness of this and the next four: the client that reads and writes through the instance.
    ReadStarted { instance: InstanceName, read: u64, what: Cached },
    /// The read returned a value whose newest part has the token `version`; none if the value is empty.
    ReadReturned { instance: InstanceName, read: u64, version: Option<Token> },
    /// A client's write, which changed `what`, was acknowledged: `writer` wrote it under `token`.
    WriteAcked { instance: InstanceName, what: Cached, writer: InstanceName, token: Token },

    /// A client's message to the devices of `clients` was acknowledged.
    MessagesAcked { instance: InstanceName, clients: Vec<Client>, message_id: String },

    /// A client's write was done, but the instance's wait for `writer`'s position to reach `position` timed out.
    WaitTimedOut { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },

    /// An instance begins to send a command that is relayed to every instance. Witness: the client that caused it.
    Began { instance: InstanceName, command: &'static str, words: String },
    /// An instance has received a command that is relayed to every instance. Over Redis the sender receives its own too.
    /// Witness: a consumer.
    Received { instance: InstanceName, command: &'static str, words: String },

    /// A replication connection to `target` is attempted. Witness of this and the next nine: the network, which also
    /// knows other connections (HTTP) and does not report those here.
    Connecting { instance: InstanceName, target: InstanceName, attempt: u64 },
    /// The attempt led to a connection.
    Connected { instance: InstanceName, attempt: u64 },
    /// The attempt came to nothing.
    Failed { instance: InstanceName, attempt: u64 },
    /// The client end has read a `SERVER` line. Over Redis: a `REPLICATE` on its subscription, which comes back to its
    /// sender, or the broker's answers to all that it has published.
    Greeted { instance: InstanceName, attempt: u64 },
    /// The client end of a subscription has read the broker's answer to a ping.
    Ponged { instance: InstanceName, attempt: u64 },
    /// The client end has read a `POSITION` line with the tokens `prev` and `position`, of another instance.
    Announced {
        instance: InstanceName,
        attempt: u64,
        stream: StreamName,
        writer: InstanceName,
        prev: Token,
        position: Token,
    },
    /// `instance`'s end of the connection has written a line: its kernel has it.
    Wrote { instance: InstanceName, attempt: u64, role: Role, line: Line },
    /// The client end has written a `USER_SYNC` line: its kernel has it.
    SyncSaid { instance: InstanceName, attempt: u64, instance_id: String, device: Device, is_syncing: bool },
    /// The client end has written a `CLEAR_USER_SYNC` line.
    SyncsCleared { instance: InstanceName, attempt: u64, instance_id: String },
    /// The client end knows that the connection is over: the network reported it, or the end has written an `ERROR` line.
    GivenUp { instance: InstanceName, attempt: u64 },
    /// The client end of the connection was closed.
    Closed { instance: InstanceName, attempt: u64 },

    /// A user's device began to sync, with this process. Witness of this and the next one: the client that syncs.
    SyncBegan { instance: InstanceName, boot: u64, device: Device },
    /// The device's sync ended. When a process ends, all its syncs end without this observation.
    SyncEnded { instance: InstanceName, boot: u64, device: Device },

    /// An instance had `running` tasks of one kind at once, more than ever before in this boot. Witness: the spawner of its
    /// tasks.
    Tasks { instance: InstanceName, task: Task, running: u64 },
    /// A message was put into a device's inbox. Witness: the database wrapper.
    MessageLeft { client: Client, token: Token, message_id: String },
    /// A client began to sync since a token, or for the first time. Witness of this and the next two: the client.
    SyncAsked { client: Client, instance: InstanceName, since: Option<SyncToken> },
    /// A client's sync is over without an answer: it was an error, came too late, or was lost on its way.
    SyncGivenUp { client: Client },
    /// A client has the answer to its sync.
    Synced { client: Client, instance: InstanceName, since: Option<SyncToken>, answer: Rc<Answer> },

    /// One end of a connection is gone, and `survivor`, at the other end, was not notified. Witness of this and the next
    /// two: the storm.
    HalfOpened { survivor: InstanceName, attempt: u64 },
    /// A process is frozen.
    Frozen { instance: InstanceName },
    /// A frozen process continues.
    Thawed { instance: InstanceName },
    /// The number of clients that the broker dropped for exceeding the output-buffer limit; once, at the end of a run.
    /// Witness: the broker.
    SubscribersDropped { count: u64 },
    /// A fault on `hosts` began. Witness of this and the next: the storm.
    FaultBegan { hosts: Vec<InstanceName> },
    /// The fault is over. Its effects last for up to `lingers_ms`.
    FaultEnded { hosts: Vec<InstanceName>, lingers_ms: u64 },
    /// The broker's name leads to another server, and some connections stay on the old one. Witness: the storm.
    BrokerFailedOver,
    /// A writer that the configuration of the start does not name was added. Witness: the storm.
    WriterAdded { instance: InstanceName },
    /// A stream cannot be read any more, and never will be: its missing rows are no fault of the stack. Witness: the storm.
    StreamBroken { stream: StreamName },
    /// The presence writer took a silent process for dead. This is the stack's own word, and no invariant uses it: it only
    /// counts in the marks.
    Expired { instance: InstanceName },

    /// On its connection to `target`, `instance` has read a line of `stream` that it need not understand: it does not have
    /// the stream, or does not know the shape of the row. Witness: the storm.
    UnknownRowRead { instance: InstanceName, target: InstanceName, stream: StreamName },
    /// On its connection to `target`, `instance` has read a position of `stream` that no instance has announced. It does no
    /// harm, but ends half a batch. Witness: the storm.
    ForgedPositionRead { instance: InstanceName, target: InstanceName, stream: StreamName },
    /// On its connection to `target`, `instance` has read a line that its peers do not send. If it `is_refused`, the instance
    /// closes the connection. Any other line does no harm, such as a blank one. Witness: the storm.
    OddLineRead { instance: InstanceName, target: InstanceName, line: &'static str, is_refused: bool },
    /// An instance has reported a line of `stream` that it does not understand. Its own word, because the report itself is
    /// the property.
    Reported { instance: InstanceName, stream: StreamName },

    /// The storm is over: every fault is healed and nothing more is written. Witness of this and the next: the storm.
    Calm,
    /// The calm bound has passed, and something had not converged.
    CalmOver,

    /// Rows of `instance` were committed after their process had ended or their request was dropped. Witness of this and
    /// the next two: the database wrapper.
    LateCommit { instance: InstanceName },
    /// Rows of `instance` were refused, because a later process of that name had begun.
    Fenced { instance: InstanceName },
    /// Rows of `instance` were committed, and the caller got an error.
    AcknowledgementLost { instance: InstanceName },

    /// A client asked `instance` to set the presence of a device: its state, and without a sync its status message. `request`
    /// identifies the request within the whole run. Witness of this and the next: the client.
    PresenceAsked {
        instance: InstanceName,
        request: u64,
        device: Device,
        state: String,
        is_sync: bool,
        status: Option<String>,
    },
    /// The request was acknowledged. A request may also never be.
    PresenceSet { instance: InstanceName, request: u64 },
    /// A user's receipts of `room_ids`, which were sent together, were acknowledged. Witness: the client.
    ReceiptsAcked { instance: InstanceName, user_id: String, room_ids: Vec<String> },
    /// A client's correct request `what` failed, `after_ms` after it began. Witness of this and the next one: the client.
    RequestFailed { instance: InstanceName, what: &'static str, after_ms: u64, failure: RequestFailure },
    /// In the calm, a client's correct request was answered, or it was repeated for the whole calm bound in vain.
    Probed { instance: InstanceName, what: &'static str, after_ms: u64, is_answered: bool },
    /// A user asks to type in a room, through another instance than the writer. Witness of this and the next one: the
    /// client.
    TypingAsked { room_id: String, user_id: String },
    /// A user types in a room from now on for `timeout_ms`, or has stopped. The request was answered `after_ms` after it
    /// began; to the writer itself, it takes effect now.
    TypingSet { room_id: String, user_id: String, timeout_ms: Option<u64>, after_ms: u64 },
    /// A client looked for its write `what` of `stream` once it was acknowledged, `after_ms` after the request began.
    /// Witness: the client.
    ReadBack {
        instance: InstanceName,
        stream: StreamName,
        writer: InstanceName,
        what: String,
        after_ms: u64,
        is_seen: bool,
    },
    /// An instance has hit one of its limits. This is the stack's own word. It counts in the marks; where the plan lets
    /// instances have few connections, a refused one also explains a delay.
    LimitHit { instance: InstanceName, limit: &'static str },
}
