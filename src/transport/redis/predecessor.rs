//! Ends the old publishing connection of this process, before the process publishes on the next one.
//!
//! A process may lose a connection while the broker has not read all of it yet. The broker may read the rest after the
//! first lines of the next connection, an old `POSITION` among them. A follower that has just subscribed takes that for the
//! answer to its `REPLICATE`. It then applies the next row of the new connection, although it was not subscribed while the
//! rows between were published (seed 9060 of `redis_swarm`). So the process first makes the broker close the old
//! connection. The broker publishes nothing that it has not read by then.
//!
//! A process knows only its own connections. After a restart, the last bytes of the earlier process may still arrive.

use std::cell::RefCell;

use redis::aio::MultiplexedConnection;

use super::connection::{Broker, BrokerError, answer};

/// The connection on which this process published last.
#[derive(Default)]
pub(super) struct Predecessor(RefCell<Option<ClientId>>);

/// The identity of a connection at a broker. Each server counts its connections from 1, so the address tells equal numbers
/// of two servers apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ClientId {
    id: String,
    address: String,
}

impl ClientId {
    /// Parses the answer to `CLIENT INFO`: `id=3 addr=127.0.0.1:50188 laddr=127.0.0.1:6379 …`.
    fn parse(info: &str) -> Option<Self> {
        let field = |name| info.split_whitespace().find_map(|field| field.strip_prefix(name)).map(str::to_owned);
        Some(ClientId { id: field("id=")?, address: field("addr=")? })
    }
}

impl Predecessor {
    /// Ends the predecessor of `client`, and makes `client` the predecessor of the next connection. Calls `answered` at each
    /// answer of the broker: it shows that the connection works (seed 1000002 of `redis_swarm`).
    ///
    /// Redis knows these commands since 6.2, and an administrator may forbid them. Then this reports the error, and the
    /// old connection stays.
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
        let old = self.0.borrow().clone();
        if let Some(ClientId { id, address }) = old {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("ID").arg(id).arg("ADDR").arg(address);
            answer("CLIENT KILL", kill.exec_async(client)).await?;
            answered();
        }
        let mut info = redis::cmd("CLIENT");
        info.arg("INFO");
        let info: String = answer("CLIENT INFO", info.query_async(client)).await?;
        answered();
        self.0.replace(ClientId::parse(&info));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_connection_is_its_number_and_address() {
        let info =
            "id=3 addr=127.0.0.1:50188 laddr=127.0.0.1:6379 fd=8 name= age=0 lib-name= cmd=client|info user=default\n";
        let client = ClientId { id: "3".into(), address: "127.0.0.1:50188".into() };
        assert_eq!(ClientId::parse(info), Some(client));
        assert_eq!(ClientId::parse("OK"), None);
    }
}
