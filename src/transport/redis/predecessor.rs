//! Ends the old publishing connection of this instance, before the instance publishes on the next one.
//!
//! An instance may lose a connection while the broker has not read all of it yet. The broker may read the rest after the
//! first lines of the next connection, an old `POSITION` among them. A follower that has just subscribed takes that for the
//! answer to its `REPLICATE`. It then applies the next row of the new connection, although it was not subscribed while the
//! rows between were published (seed 9060 of `redis_swarm`). So the instance first makes the broker close the old
//! connection. The broker publishes nothing that it has not read by then.
//!
//! A process knows its own connections. After a restart, the last bytes of the earlier process may arrive as late (seed
//! 1001883 of `redis`). So each connection is noted at the broker too, under a key of the instance, before anything is
//! published on it.

use std::cell::RefCell;

use redis::aio::MultiplexedConnection;

use super::connection::{Broker, BrokerError, answer};
use squall_protocol::InstanceName;

/// The connection on which this instance published last.
pub(super) struct Predecessor {
    /// The key at the broker.
    key: String,
    /// The connection as this process remembers it, also where the broker keeps no keys for it.
    known: RefCell<Option<ClientId>>,
}

/// The identity of a connection at a broker. Each server counts its connections from 1, so the address tells equal numbers
/// of two servers apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ClientId {
    id: u64,
    address: String,
}

impl ClientId {
    /// Parses the answer to `CLIENT INFO`: `id=3 addr=127.0.0.1:50188 laddr=127.0.0.1:6379 …`.
    fn parse(info: &str) -> Option<Self> {
        let field = |name| info.split_whitespace().find_map(|field| field.strip_prefix(name));
        Some(ClientId { id: field("id=")?.parse().ok()?, address: field("addr=")?.to_owned() })
    }

    /// Returns the client as it is noted at the broker, in the form that [`parse`](Self::parse) reads.
    fn note(&self) -> String {
        format!("id={} addr={}", self.id, self.address)
    }
}

impl Predecessor {
    /// Returns the predecessor of the first connection of a process of `instance`.
    pub(super) fn new(server_name: &str, instance: &InstanceName) -> Self {
        Predecessor { key: format!("{server_name}/publisher/{instance}"), known: RefCell::default() }
    }

    /// Ends the predecessor of `client`, and makes `client` the predecessor of the next connection. Calls `answered` at each
    /// answer of the broker: it shows that the connection works (seed 1000002 of `redis_swarm`).
    ///
    /// Redis knows `CLIENT INFO` since 6.2, and an administrator may forbid the commands or the key. Then this reports the
    /// error, and an old connection stays: one of an earlier process if only the key is forbidden.
    pub(super) async fn replace(
        &self,
        client: &mut MultiplexedConnection,
        broker: &Broker,
        answered: impl Fn(),
    ) -> Result<(), BrokerError> {
        match self.try_replace(client, &answered).await {
            Err(BrokerError::Redis(refused)) if refused.code().is_some() => {
                broker.report(&BrokerError::OldConnectionOpen(refused));
                answered();
                Ok(())
            }
            replaced => replaced,
        }
    }

    async fn try_replace(&self, client: &mut MultiplexedConnection, answered: impl Fn()) -> Result<(), BrokerError> {
        let known = self.known.borrow().clone();
        if let Some(known) = &known {
            kill(known, client).await?;
            answered();
        }
        let info: String = answer("CLIENT INFO", redis::cmd("CLIENT").arg("INFO").query_async(client)).await?;
        answered();
        let Some(own) = ClientId::parse(&info) else { return Ok(()) };
        let note = own.note();
        // Before the key is asked for, which the broker may refuse.
        self.known.replace(Some(own));
        let noted: Option<String> = answer("GET", redis::cmd("GET").arg(&self.key).query_async(client)).await?;
        answered();
        if let Some(noted) = noted.and_then(|note| ClientId::parse(&note)).filter(|noted| known.as_ref() != Some(noted))
        {
            kill(&noted, client).await?;
            answered();
        }
        // Not before that one is ended: an answer that is lost must not lose it.
        answer("SET", redis::cmd("SET").arg(&self.key).arg(note).exec_async(client)).await?;
        answered();
        Ok(())
    }
}

/// Makes the broker close a connection. There may be none any more.
async fn kill(ClientId { id, address }: &ClientId, client: &mut MultiplexedConnection) -> Result<(), BrokerError> {
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("ID").arg(id).arg("ADDR").arg(address);
    answer("CLIENT KILL", kill.exec_async(client)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_connection_is_its_number_and_address() {
        let info =
            "id=3 addr=127.0.0.1:50188 laddr=127.0.0.1:6379 fd=8 name= age=0 lib-name= cmd=client|info user=default\n";
        let client = ClientId { id: 3, address: "127.0.0.1:50188".into() };
        assert_eq!(ClientId::parse(info).as_ref(), Some(&client));
        assert_eq!(ClientId::parse(&client.note()), Some(client));
        for other in ["OK", "id=3", "id= addr=a", "id=-3 addr=a", "id=three addr=a"] {
            assert_eq!(ClientId::parse(other), None, "{other}");
        }
    }
}
