//! The kinds of an instance's tasks.

use squall_env::TaskKind;

/// Accepts connections of the line protocol.
pub const ACCEPT_CONNECTIONS: TaskKind = TaskKind::new("accept_connections");
/// Checks a position that was heard under the instance's own name.
pub const CHECK_OWN_POSITION: TaskKind = TaskKind::new("check_own_position");
/// Announces users that sync to the presence writer.
pub const ANNOUNCE_USER_SYNCS: TaskKind = TaskKind::new("announce_user_syncs");
/// Forgets processes that have been silent for too long.
pub const EXPIRE_PROCESSES: TaskKind = TaskKind::new("expire_processes");
/// Applies one writer's rows of one stream.
pub const STREAM_FOLLOWER: TaskKind = TaskKind::new("feed");
/// Drives one connection of an HTTP client.
pub const HTTP_CLIENT_CONNECTION: TaskKind = TaskKind::new("http_client_connection");
/// Serves one HTTP connection.
pub const HTTP_CONNECTION: TaskKind = TaskKind::new("http_connection");
/// Executes one HTTP request, also when its connection is gone.
pub const HTTP_REQUEST: TaskKind = TaskKind::new("http_request");
/// Checks now and then that the broker's name leads to the server of the connections.
pub const KEEP_CHECKING_NAME: TaskKind = TaskKind::new("keep_checking_name");
/// Stores a writer's position in the database.
pub const KEEP_POSITION: TaskKind = TaskKind::new("keep_position");
/// Keeps the connection on which an instance publishes.
pub const KEEP_PUBLISHING: TaskKind = TaskKind::new("keep_publishing");
/// Serves one connection to the metrics port.
pub const METRICS_CONNECTION: TaskKind = TaskKind::new("metrics_connection");
/// Handles one `POSITION`: a part of [`STREAM_FOLLOWER`].
pub const ON_POSITION: TaskKind = TaskKind::new("on_position");
/// Handles the rows of one token: a part of [`STREAM_FOLLOWER`].
pub const ON_RDATA: TaskKind = TaskKind::new("on_rdata");
/// Writes rows to the database.
pub const PERSIST: TaskKind = TaskKind::new("persist");
/// Writes changes of presence to the database.
pub const PERSIST_PRESENCE: TaskKind = TaskKind::new("persist_presence");
/// Wakes a streamer when new rows are committed.
pub const POKE: TaskKind = TaskKind::new("poke");
/// Takes users offline whose time has passed.
pub const PRESENCE_TIMEOUTS: TaskKind = TaskKind::new("presence_timeouts");
/// Drives one connection of the Redis client.
pub const REDIS_CONNECTION: TaskKind = TaskKind::new("redis_connection");
/// Serves the metrics port.
pub const SERVE_METRICS: TaskKind = TaskKind::new("serve_metrics");
/// Accepts HTTP connections.
pub const SERVE_REQUESTS: TaskKind = TaskKind::new("serve_requests");
/// Serves one connection of the line protocol.
pub const SERVER_CONNECTION: TaskKind = TaskKind::new("server_connection");
/// Keeps the connection to one writer.
pub const STAY_CONNECTED: TaskKind = TaskKind::new("stay_connected");
/// Keeps the subscription at the broker.
pub const STAY_SUBSCRIBED: TaskKind = TaskKind::new("stay_subscribed");
/// Sends the rows of one stream.
pub const STREAMER: TaskKind = TaskKind::new("streamer");
/// Reports when the database cannot be written, and when it can again.
pub const WATCH_DATABASE: TaskKind = TaskKind::new("watch_database");
/// Logs writes that hold a position back.
pub const WATCH_SLOW_WRITES: TaskKind = TaskKind::new("watch_slow_writes");
/// Looks for users whose syncs have ended.
pub const SWEEP_USER_SYNCS: TaskKind = TaskKind::new("sweep_user_syncs");
/// Ends the typing of one user.
pub const TYPING_TIMEOUT: TaskKind = TaskKind::new("typing_timeout");
/// Performs one operation of a simulated client.
pub const OPERATION: TaskKind = TaskKind::new("operation");
/// Answers one `/sync` of a simulated client.
pub const SYNC: TaskKind = TaskKind::new("sync");

/// The kinds of which there is a task for each request of a user: users decide how many run at once. Of every other kind an
/// instance needs a bounded number.
pub const PER_REQUEST: [TaskKind; 6] =
    [HTTP_CLIENT_CONNECTION, HTTP_CONNECTION, HTTP_REQUEST, OPERATION, PERSIST, TYPING_TIMEOUT];
