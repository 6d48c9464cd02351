//! The connection on which this instance publishes.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, Value};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::connection::{Broker, BrokerError, PING_INTERVAL, answer, cause, closed, keep_connected, settle};
use super::echo::{Echo, Echoes};
use super::predecessor::Predecessor;
use super::read_limiter::ReadLimiter;
use crate::limits::LimitHit;
use crate::observer::Env;
use crate::replication::{CommandHandler, Connection};
use crate::tasks;
use crate::transport::RedisConfig;
use squall_protocol::RdataHeader;

/// Publishes the instance's commands until it stops.
///
/// Each connection begins with the positions of all streams that this instance writes. Followers then fetch the rows that
/// the previous connection lost, which they could not notice otherwise.
pub async fn keep_publishing(config: RedisConfig, echoes: Rc<Echoes>, handler: Rc<CommandHandler>, env: Env) {
    let broker = Broker::new(&config, &env);
    let predecessor = Predecessor::new(handler.server_name(), handler.instance());
    keep_connected("publish", &broker, async || match connect_and_ping(&broker, &env).await {
        Ok(BrokerClient { mut client, mut reading, limiter }) => {
            let connection = handler.publishing();
            let publishing = async {
                let answered = || {
                    connection.mark_working();
                    settle(&connection, &env);
                };
                predecessor.replace(&mut client, &broker, answered).await?;
                publish(&connection, client, &limiter, &echoes.publishing, &handler, &env).await
            };
            let error = tokio::select! {
                biased;
                Err(error) = publishing => cause(error, &limiter),
                // Without this, an idle connection would notice its end only at the next ping.
                _ = &mut reading => closed(&limiter),
            };
            close(reading).await;
            connection.closed();
            handler.lost(&connection);
            (Some(connection), error)
        }
        Err(error) => (None, error),
    })
    .await;
}

/// Publishes one payload on a connection of its own.
pub async fn publish_on_new_connection(
    broker: &Broker,
    channel: &str,
    payload: &[u8],
    env: &Env,
) -> Result<(), BrokerError> {
    let BrokerClient { mut client, reading, .. } = connect(broker, env).await?;
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(channel).arg(payload);
    let published = answer("PUBLISH", publish.exec_async(&mut client)).await;
    reading.abort();
    published
}

/// A connection on which to publish.
struct BrokerClient {
    client: MultiplexedConnection,
    /// The task that reads the replies. It ends with the connection.
    reading: JoinHandle<()>,
    limiter: ReadLimiter,
}

/// Establishes a connection and waits until the broker has answered a ping.
async fn connect_and_ping(broker: &Broker, env: &Env) -> Result<BrokerClient, BrokerError> {
    let BrokerClient { mut client, reading, limiter } = connect(broker, env).await?;
    let pinged = answer("PING", redis::cmd("PING").query_async::<Value>(&mut client)).await;
    if let Err(error) = pinged {
        close(reading).await;
        return Err(cause(error, &limiter));
    }
    limiter.answered();
    Ok(BrokerClient { client, reading, limiter })
}

/// Establishes a connection.
async fn connect(broker: &Broker, env: &Env) -> Result<BrokerClient, BrokerError> {
    let (stream, info, limiter) = broker.open().await?;
    // The crate's time-outs are too short for a busy broker; `answer` has Squall's.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let connecting = MultiplexedConnection::new_with_config(&info, stream, config);
    let greeted = answer("the greeting", connecting).await;
    let (client, driver) = greeted.map_err(|error| cause(error, &limiter))?;
    let reading = env.tasks.spawn(tasks::REDIS_CONNECTION, driver);
    Ok(BrokerClient { client, reading, limiter })
}

/// Closes a connection and waits until it is closed, so that two connections never overlap.
async fn close(reading: JoinHandle<()>) {
    if !reading.is_finished() {
        reading.abort();
        // The task has ended by itself or was aborted. Either is fine.
        let _ = reading.await;
    }
}

/// Publishes the commands in the outbox until the connection ends.
async fn publish(
    connection: &Connection,
    mut client: MultiplexedConnection,
    limiter: &ReadLimiter,
    echo: &Echo,
    handler: &CommandHandler,
    env: &Env,
) -> Result<std::convert::Infallible, BrokerError> {
    let mut echo_at = Instant::now() + PING_INTERVAL;
    loop {
        // First of all, because commands may come without a pause: only the numbers show whether this instance hears
        // itself.
        if echo_at <= Instant::now() {
            let number = echo.next();
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&echo.channel).arg(number);
            answer("PUBLISH", publish.exec_async(&mut client)).await?;
            echo.taken(number);
            echo_at = Instant::now() + PING_INTERVAL;
        } else {
            match timeout_at(echo_at, connection.outgoing()).await {
                Ok(Some(payloads)) => {
                    for payload in &payloads {
                        env.observer.sent(payload);
                    }
                    let pipelines = pipelines(handler.server_name(), payloads, handler.limits().unanswered_max);
                    for _ in 1..pipelines.len() {
                        env.observer.limit_hit(LimitHit::RepliesAwaited);
                    }
                    for pipeline in pipelines {
                        answer("PUBLISH", pipeline.exec_async(&mut client)).await?;
                        // Each answer shows that the connection works, also with more to publish.
                        connection.mark_working();
                        settle(connection, env);
                    }
                }
                // The connection is closed here and the outbox is empty.
                Ok(None) => return Err(BrokerError::ClosedHere),
                // The next number is due.
                Err(_) => continue,
            }
        }
        // The replies prove that the connection works.
        limiter.answered();
        settle(connection, env);
    }
}

/// Splits the payloads into pipelines of about `unanswered_max` commands, so that unread replies do not pile up. The
/// channel is named after the homeserver.
///
/// The broker publishes all rows of a token or none (`MULTI`, `EXEC`). A connection may end while it holds some of them
/// unread, and the broker may read these after the `POSITION` of the next connection. Followers, which do not see
/// connections of publishers, would take them for the beginning of the next token's rows.
fn pipelines(server_name: &str, payloads: VecDeque<Bytes>, unanswered_max: usize) -> Vec<Pipeline> {
    let mut pipelines = Vec::new();
    let mut pipeline = Pipeline::new();
    let mut is_in_token = false;
    for payload in &payloads {
        if pipeline.len() >= unanswered_max {
            pipelines.push(std::mem::take(&mut pipeline));
        }
        let has_more_rows = continues_token(payload);
        if has_more_rows && !is_in_token {
            pipeline.cmd("MULTI");
        }
        let words = ["PUBLISH".as_bytes(), server_name.as_bytes(), payload];
        let mut publish = Cmd::with_capacity(words.len(), words.iter().map(|word| word.len()).sum());
        publish.arg(&words);
        pipeline.add_command(publish);
        if is_in_token && !has_more_rows {
            pipeline.cmd("EXEC");
        }
        is_in_token = has_more_rows;
    }
    pipelines.push(pipeline);
    pipelines
}

/// Returns true if the payload is a row that shares its token with the next one.
fn continues_token(payload: &[u8]) -> bool {
    let text = std::str::from_utf8(payload).expect("commands are text");
    RdataHeader::of(text).is_some_and(|header| header.token.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UNANSWERED_MAX;

    /// Returns the words of the commands that publish `payloads`, of each pipeline.
    fn published(payloads: impl IntoIterator<Item = String>) -> Vec<Vec<String>> {
        let pipelines = pipelines("s", payloads.into_iter().map(Bytes::from).collect(), UNANSWERED_MAX);
        let words = |pipeline: &Pipeline| {
            let command = |command: &redis::Cmd| match command.args_iter().last() {
                Some(redis::Arg::Simple(word)) => String::from_utf8_lossy(word).into_owned(),
                _ => panic!("a command has words"),
            };
            pipeline.cmd_iter().map(command).collect()
        };
        pipelines.iter().map(words).collect()
    }

    fn row(token: &str) -> String {
        format!("RDATA events a {token} [\"state-all\",[\"!r\"]]")
    }

    #[test]
    fn all_rows_of_a_token_are_published_or_none() {
        let lines = [row("1"), row("batch"), row("batch"), row("2"), "POSITION events a 2 2".into(), row("3")];
        let [one, batch, other, two, position, three] = lines.clone();
        let (begin, end) = ("MULTI".to_owned(), "EXEC".to_owned());
        assert_eq!(published(lines), [[one, begin, batch, other, two, end, position, three]]);
    }

    #[test]
    fn rows_of_a_token_that_was_not_queued_whole_are_not_published() {
        let [batch, other] = [row("batch"), row("batch")];
        assert_eq!(published([batch.clone(), other.clone()]), [["MULTI".to_owned(), batch, other]]);
    }

    #[test]
    fn replies_are_awaited_now_and_then() {
        let lengths = |rows| published(rows).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(vec![row("1"); 2 * UNANSWERED_MAX + 1]), [UNANSWERED_MAX, UNANSWERED_MAX, 1]);
        let mut token = vec![row("batch"); UNANSWERED_MAX];
        token.push(row("1"));
        assert_eq!(lengths(token), [UNANSWERED_MAX, 3], "with MULTI and EXEC");
    }
}
