//! What the judge is told, and by whom.
//!
//! Every variant names its witness. None of them is the stack speaking of itself: a replication layer that believes it
//! delivered a row is exactly the one that lost it unnoticed.

use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::caches::Cached;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::Row;
use crate::sync::{SyncToken, TypingNews};

/// When something was observed, in milliseconds since the run (or the recording) began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds that passed since `earlier`; none if it is not earlier.
    pub fn ms_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}

/// A device that syncs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Device {
    /// The user.
    pub user: String,
    /// The user's device, if it is known.
    pub device: Option<String>,
}

/// A device of a user that syncs.
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

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The one that connected: it follows.
    Client,
    /// The one that accepted: it writes, or is the master.
    Server,
    /// The one that publishes at a broker: whatever it says everybody hears.
    Publisher,
}

/// A line, as much of it as the judge wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are those of the commands")]
pub enum Line {
    /// A row. Rows that share a token have none until the last of them.
    Rdata { stream: StreamName, writer: InstanceName, token: Option<Token> },
    /// A position.
    Position { stream: StreamName, writer: InstanceName, prev: Token, new: Token },
    /// Another command, by its name.
    Other(&'static str),
    /// Something that is no command.
    Nonsense,
}

impl Line {
    /// The name of the command.
    pub fn command(&self) -> &'static str {
        match self {
            Line::Rdata { .. } => "RDATA",
            Line::Position { .. } => "POSITION",
            Line::Other(name) => name,
            Line::Nonsense => "a line that is no command",
        }
    }
}

/// What a client was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The token to come back with.
    pub next: SyncToken,
    /// The ids of events, in the order of the answer.
    pub events: Vec<(Token, String)>,
    /// The ids of messages to the device, in the order of the answer.
    pub to_device: Vec<(Token, String)>,
    /// Receipts, account data and presence, each in the order of the answer.
    pub rows: Vec<(Token, Row)>,
    /// Who types.
    pub typing: TypingNews,
}

/// Something that was seen to happen.
///
/// Fields mean the same everywhere: `instance` is the one it happened at, `boot` counts that instance's processes
/// upwards, `writer` is the instance whose rows of `stream` it is about, and `attempt` identifies one connection
/// attempt, and the connection it led to, within the whole run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields mean the same in every variant and are explained once, above")]
pub enum Observation {
    /// A process began. Witness: whoever runs it.
    Started { instance: InstanceName, boot: u64 },
    /// A process was asked to stop gracefully. Witness: whoever runs it.
    AskedToStop { instance: InstanceName, boot: u64 },
    /// A process ended, however. Witness: whoever ran it.
    Stopped { instance: InstanceName, boot: u64 },

    /// One row of a stream in the database took effect. All rows of a token come before anything of that token is applied.
    /// Witness: the database wrapper.
    Committed { stream: StreamName, writer: InstanceName, token: Token, row: Row },
    /// A row of a keyed stream in the database was removed (not overwritten). Witness: the database wrapper.
    Removed { stream: StreamName, writer: InstanceName, token: Token, row: Row },
    /// The database was made to say something that only one request of one client says. Witness: the database wrapper.
    TookEffect { place: String, words: String },
    /// The truth of an in-memory stream changed, as `row` says. Witness: the consumer registered on its writer.
    Changed { stream: StreamName, writer: InstanceName, boot: u64, token: Token, row: Row },

    /// An instance was given `rows` rows of a stream that it had asked the database for, to send them or to catch up.
    /// Witness: the database wrapper, by SQLite's own count.
    Fetched { instance: InstanceName, stream: StreamName, rows: u64 },

    /// An instance follows a writer from `position` on; once per boot, stream and writer. Witness of this and the
    /// next three: the consumer registered on the instance that follows.
    Following { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },
    /// All the rows of one token were applied, and `token` is the position now.
    Applied { instance: InstanceName, stream: StreamName, writer: InstanceName, token: Token, rows: Vec<Row> },
    /// The position moved, or was confirmed, without rows.
    Positioned { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },
    /// In-memory streams: whatever was applied before is void, and `position` is the position now.
    Reset { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },

    /// A client asks for `what`. `read` identifies the question within the whole run; one that fails is never answered.
    /// Witness of this and the next two: the client that reads and writes through the instance.
    Asked { instance: InstanceName, read: u64, what: Cached },
    /// The client was answered with a value whose newest part came under the token `version`; none if it was empty.
    Told { instance: InstanceName, read: u64, version: Option<Token> },
    /// A client was told that its write, which changed `what`, is done: `writer` wrote it under `token`.
    Answered { instance: InstanceName, what: Cached, writer: InstanceName, token: Token },

    /// A client was told that its write is done, but that the instance had waited in vain for `writer`'s position to reach
    /// `position`. Witness: the client.
    WaitTimedOut { instance: InstanceName, stream: StreamName, writer: InstanceName, position: Token },

    /// Somebody begins to say something that everybody is told. Witness: the client that makes an instance say it.
    Began { command: &'static str },

    /// A replication connection to `target` is attempted. Witness of this and the next nine: the network, which also
    /// knows other connections (HTTP) and does not report those here.
    Connecting { instance: InstanceName, target: InstanceName, attempt: u64 },
    /// The attempt led to a connection.
    Connected { instance: InstanceName, attempt: u64 },
    /// The attempt came to nothing.
    Failed { instance: InstanceName, attempt: u64 },
    /// The client end has read a `SERVER` line. Over Redis: a `REPLICATE` on its subscription, which comes back to whoever
    /// said it, or answers to all
    /// that it has published.
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
    /// The end of the connection that is `instance`'s has written a line: its kernel has it.
    Wrote { instance: InstanceName, attempt: u64, side: Side, line: Line },
    /// The client end has written a `USER_SYNC` line: its kernel has it.
    SyncSaid { instance: InstanceName, attempt: u64, instance_id: String, device: Device, is_syncing: bool },
    /// The client end has written a `CLEAR_USER_SYNC` line.
    SyncsCleared { instance: InstanceName, attempt: u64, instance_id: String },
    /// The client end knows that the connection is over: the network has told it, or it has written an `ERROR` line.
    GivenUp { instance: InstanceName, attempt: u64 },
    /// The client end of the connection was closed.
    Closed { instance: InstanceName, attempt: u64 },

    /// A user's device began to sync, with this process. Witness of this and the next one: the client that syncs.
    SyncBegan { instance: InstanceName, boot: u64, device: Device },
    /// It no longer does. If the process ends, that is the end of all its syncs.
    SyncEnded { instance: InstanceName, boot: u64, device: Device },

    /// An instance had `running` tasks called `task` at once, more than ever before in this boot. Witness: whoever runs
    /// it, from the [scope](crate::env::Scope) in which its tasks run.
    Tasks { instance: InstanceName, task: &'static str, running: u64 },
    /// A message was put into a device's inbox. Witness: the database wrapper.
    MessageLeft { client: Client, token: Token, message_id: String },
    /// A client asks what is new since a token, or for the first time. Witness of this and the next: the client.
    SyncAsked { client: Client, instance: InstanceName, since: Option<SyncToken> },
    /// A client has the answer to what it asked, which not every request comes to.
    Synced { client: Client, instance: InstanceName, since: Option<SyncToken>, answer: Rc<Answer> },

    /// One end of a connection is gone, and `survivor`, at the other one, was not told. Witness of this and the next one:
    /// whoever makes the storm.
    HalfOpened { survivor: InstanceName, attempt: u64 },
    /// A process stands still. Witness of this and the next one: whoever makes the storm.
    Frozen { instance: InstanceName },
    /// It goes on.
    Thawed { instance: InstanceName },
    /// So far the broker has dropped so many clients for whom too much waited. Witness: the broker.
    SubscribersDropped { count: u64 },
    /// A stream cannot be read any more, and will not be: what is missing of it is nobody's fault.
    StreamBroken { stream: StreamName },
    /// The presence writer took a process for dead that was silent for too long. This is the stack's own word, which
    /// proves nothing: it only counts how often it came to that.
    Expired { instance: InstanceName },

    /// On its connection to `target`, `instance` has read something of `stream` that it need not understand: the stream is
    /// one that it does not have, or the row has a shape that it does not know. Witness: whoever makes the storm.
    Strange { instance: InstanceName, target: InstanceName, stream: StreamName },
    /// An instance has said that something of `stream` could not be understood. Its own word, which is what is asked for.
    Reported { instance: InstanceName, stream: StreamName },

    /// The storm is over: every fault is healed and nothing more is written. Witness: whoever makes the storm.
    Calm,
    /// The calm has lasted so long that everything must have converged, and something had not. Witness: whoever makes
    /// the storm.
    CalmOver,

    /// Rows of `instance` took effect when nobody waited for them any more: their process had ended, or the request was
    /// dropped. Witness of this and the next two: the database wrapper.
    LateCommit { instance: InstanceName },
    /// Rows of `instance` were refused, because a later process had begun under its name.
    Fenced { instance: InstanceName },
    /// Rows of `instance` took effect, and whoever waited for that was told an error.
    AcknowledgementLost { instance: InstanceName },
}
