//! The connection on which this instance speaks.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, Value};
use tokio::task::JoinHandle;

use super::connection::{Broker, BrokerError, PING_INTERVAL, again_and_again, answer, cause, closed, settle};
use super::meter::Meter;
use crate::env::Env;
use crate::instance::config::RedisConfig;
use crate::replication::{CommandHandler, Link};

/// How many commands are published before the broker's answers are waited for.
const UNANSWERED_MAX: usize = 1_000;

/// Publishes what the instance has to say until it stops.
///
/// Every connection begins with the positions of all streams that this instance writes. That makes good whatever the one
/// before has lost, and nothing else would: an instance that is not told of a row does not miss it.
pub async fn keep_publishing(config: RedisConfig, handler: Rc<CommandHandler>, env: Env) {
    let broker = Broker::new(&config, &env);
    again_and_again("publish", &broker, async || match connect(&broker, &env).await {
        Ok(Connection { connection, mut reading, meter }) => {
            let link = handler.publishing();
            let error = tokio::select! {
                biased;
                Err(error) = publish(&link, connection, &meter, &handler, &env) => cause(error, &meter),
                // Whoever has nothing to say would notice it at the next ping only.
                _ = &mut reading => closed(&meter),
            };
            closed_for_good(reading).await;
            link.closed();
            handler.lost(&link);
            (Some(link), error)
        }
        Err(error) => (None, error),
    })
    .await;
}

/// Publishes one payload, on a connection of its own.
pub async fn publish_once(broker: &Broker, channel: &str, payload: &[u8], env: &Env) -> Result<(), BrokerError> {
    let Connection { mut connection, reading, .. } = connect(broker, env).await?;
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(channel).arg(payload);
    let published = answer("PUBLISH", publish.exec_async(&mut connection)).await;
    reading.abort();
    published
}

/// A connection on which to publish.
struct Connection {
    connection: MultiplexedConnection,
    /// Reads the answers, and ends when there are no more.
    reading: JoinHandle<()>,
    meter: Meter,
}

/// A connection, and the task that reads its answers, which ends with it.
async fn connect(broker: &Broker, env: &Env) -> Result<Connection, BrokerError> {
    let (stream, info, meter) = broker.open().await?;
    // Time-outs are ours: the crate's are too short for a broker that is busy.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let connecting = MultiplexedConnection::new_with_config(&info, stream, config);
    let greeted = answer("the greeting", connecting).await;
    let (mut connection, driver) = greeted.map_err(|error| cause(error, &meter))?;
    let reading = env.tasks.spawn("redis_connection", driver);
    let pinged = answer("PING", redis::cmd("PING").query_async::<Value>(&mut connection)).await;
    if let Err(error) = pinged {
        closed_for_good(reading).await;
        return Err(cause(error, &meter));
    }
    meter.answered();
    Ok(Connection { connection, reading, meter })
}

/// Waits until a connection is closed, so that none is made before the last one is gone.
async fn closed_for_good(reading: JoinHandle<()>) {
    if !reading.is_finished() {
        reading.abort();
        // It has ended by itself or is dropped.
        let _ = reading.await;
    }
}

/// Publishes what is in the outbox, until the connection is over.
async fn publish(
    link: &Link,
    mut connection: MultiplexedConnection,
    meter: &Meter,
    handler: &CommandHandler,
    env: &Env,
) -> Result<std::convert::Infallible, BrokerError> {
    loop {
        match tokio::time::timeout(PING_INTERVAL, link.outgoing()).await {
            Ok(Some(payloads)) => {
                payloads.iter().for_each(|payload| env.observer.sent(payload));
                for pipeline in pipelines(handler.server_name(), payloads) {
                    answer("PUBLISH", pipeline.exec_async(&mut connection)).await?;
                }
                link.works();
            }
            // Everything that was said is taken.
            Ok(None) => return Err(BrokerError::ClosedHere),
            Err(_) => {
                answer("PING", redis::cmd("PING").query_async::<Value>(&mut connection)).await?;
            }
        }
        meter.answered();
        // Whoever always has something to say never pings, and what they say is answered too.
        settle(link, env);
    }
}

/// The payloads as commands to the broker, few enough at once that their answers do not pile up. The channel is called as
/// the homeserver.
fn pipelines(server_name: &str, payloads: VecDeque<Bytes>) -> Vec<Pipeline> {
    let payloads = Vec::from(payloads);
    let pipeline = |payloads: &[Bytes]| {
        let mut pipeline = Pipeline::with_capacity(payloads.len());
        for payload in payloads {
            pipeline.cmd("PUBLISH").arg(server_name).arg(&payload[..]).ignore();
        }
        pipeline
    };
    payloads.chunks(UNANSWERED_MAX).map(pipeline).collect()
}
