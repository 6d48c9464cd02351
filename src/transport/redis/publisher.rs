//! The connection on which this instance speaks.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;

use super::connection::{
    Broker, BrokerError, BrokerReader, BrokerWriter, PING_INTERVAL, again_and_again, answer, settle,
};
use super::resp::Reply;
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
    again_and_again("publish", &broker, async || match Connection::open(&broker).await {
        Ok(connection) => {
            let link = handler.publishing();
            let Err(error) = publish(&link, connection, &handler, &env).await;
            link.closed();
            handler.lost(&link);
            (Some(link), error)
        }
        Err(error) => (None, error),
    })
    .await;
}

/// A connection on which everything that is said is answered.
struct Connection {
    reader: BrokerReader,
    writer: BrokerWriter,
}

impl Connection {
    async fn open(broker: &Broker) -> Result<Self, BrokerError> {
        let (reader, writer) = broker.open().await?;
        let mut connection = Connection { reader, writer };
        connection.ping().await?;
        Ok(connection)
    }

    async fn ping(&mut self) -> Result<(), BrokerError> {
        let asked = async {
            self.writer.send([&[&b"PING"[..]][..]]).await?;
            self.reader.expect("PING", Reply::is_pong).await
        };
        answer("PING", asked).await
    }

    /// Publishes on `channel`, all at once, and waits for the answers.
    async fn publish(&mut self, channel: &str, payloads: &[Bytes]) -> Result<(), BrokerError> {
        let Connection { reader, writer } = self;
        let commands: Vec<_> = payloads.iter().map(|payload| [b"PUBLISH", channel.as_bytes(), payload]).collect();
        let answers = async {
            for _ in payloads {
                reader.expect("PUBLISH", |reply| matches!(reply, Reply::Integer(_))).await?;
            }
            Ok(())
        };
        // Together, for the broker may take no more before its answers are taken.
        let asked = async { tokio::try_join!(writer.send(commands.iter().map(|words| &words[..])), answers) };
        answer("PUBLISH", asked).await?;
        Ok(())
    }
}

/// Publishes what is in the outbox, until the connection is over. The channel is called as the homeserver.
async fn publish(
    link: &Link,
    mut connection: Connection,
    handler: &CommandHandler,
    env: &Env,
) -> Result<Infallible, BrokerError> {
    loop {
        let outgoing = tokio::select! {
            biased;
            // Whoever has nothing to say would notice it at the next ping only.
            reply = connection.reader.next() => return Err(BrokerError::unexpected("nothing", &reply?)),
            outgoing = tokio::time::timeout(PING_INTERVAL, link.outgoing()) => outgoing,
        };
        match outgoing {
            Ok(Some(payloads)) => {
                for payloads in Vec::from(payloads).chunks(UNANSWERED_MAX) {
                    connection.publish(handler.server_name(), payloads).await?;
                }
                link.works();
            }
            // Everything that was said is taken.
            Ok(None) => return Err(BrokerError::ClosedHere),
            Err(_) => connection.ping().await?,
        }
        // Whoever always has something to say never pings, and what they say is answered too.
        settle(link, env);
    }
}
