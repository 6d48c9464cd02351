//! The broker's side of one client's connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::state::{Client, State};
use crate::transport::redis::resp::{Reply, RequestDecoder};
use squall_env::BoxStream;

/// Serves one client until either end closes the connection.
pub(super) async fn serve(stream: BoxStream, state: Rc<State>) {
    let (read_half, write_half) = tokio::io::split(stream);
    let client = state.connect();
    let session = Session {
        client: Rc::clone(&client),
        is_authenticated: Cell::new(state.is_authenticated(None)),
        transaction: RefCell::default(),
        state: Rc::clone(&state),
    };
    // An error also closes the connection, which is all that the client sees of it.
    let _ = tokio::select! {
        biased;
        // First, because a client that was disconnected has no request executed any more, not even one that has arrived.
        () = client.dropped() => Ok(()),
        ended = session.receive(read_half) => ended,
        ended = send(&client, write_half) => ended,
    };
    state.disconnect(&client);
}

/// Sends the client's outbox until the connection is to be closed.
async fn send(client: &Client, mut stream: WriteHalf<BoxStream>) -> io::Result<()> {
    while let Some(mut bytes) = client.outgoing().await {
        stream.write_all_buf(&mut bytes).await?;
    }
    Ok(())
}

/// A connection and its authentication.
struct Session {
    client: Rc<Client>,
    is_authenticated: Cell<bool>,
    /// The requests since `MULTI`, while there is a transaction.
    transaction: RefCell<Option<Transaction>>,
    state: Rc<State>,
}

/// Requests that are executed together.
#[derive(Default)]
struct Transaction {
    requests: Vec<Vec<Bytes>>,
    /// True if one of them was refused. Then none is executed.
    is_damaged: bool,
}

impl Session {
    /// Executes the client's requests until the client closes the connection.
    async fn receive(&self, mut stream: ReadHalf<BoxStream>) -> io::Result<()> {
        let mut requests = RequestDecoder::default();
        loop {
            if stream.read_buf(requests.buffer()).await? == 0 {
                return Ok(());
            }
            loop {
                match requests.next_request() {
                    Ok(Some(request)) => self.execute(&request),
                    Ok(None) => break,
                    Err(error) => {
                        self.client.send(&Reply::Error(format!("ERR {error}")));
                        self.client.close();
                        return std::future::pending().await;
                    }
                }
            }
        }
    }

    fn execute(&self, request: &[Bytes]) {
        let (command, words) = request.split_first().expect("a request has words");
        let name = String::from_utf8_lossy(command).to_lowercase();
        if !self.is_authenticated.get() && !["auth", "hello", "quit"].contains(&&*name) {
            return self.client.send(&Reply::Error("NOAUTH Authentication required.".into()));
        }
        if self.client.is_subscribed() && !["subscribe", "unsubscribe", "ping", "quit"].contains(&&*name) {
            let allowed = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
            return self.client.send(&Reply::Error(format!("ERR Can't execute '{name}': {allowed}")));
        }
        match (&*name, words) {
            ("multi", []) => self.client.send(&self.begin()),
            ("exec", []) => self.client.send(&self.commit()),
            ("discard", []) => self.client.send(&self.discard()),
            _ if self.transaction.borrow().is_some() => self.client.send(&self.queue(&name, request)),
            ("subscribe", [_, ..]) => self.state.subscribe(&self.client, words),
            ("unsubscribe", _) => self.state.unsubscribe(&self.client, words),
            _ => self.client.send(&self.reply(&name, request)),
        }
    }

    /// Executes a request that has one reply.
    fn reply(&self, name: &str, request: &[Bytes]) -> Reply {
        match (name, &request[1..]) {
            ("ping", words @ ([] | [_])) => self.pong(words.first()),
            ("publish", [channel, payload]) => Reply::Integer(self.state.publish(channel, payload)),
            ("get", [key]) => Reply::Bulk(self.state.get(key)),
            ("set", [key, value, options @ ..]) => self.set(key, value, options),
            ("client", words) => self.client(words),
            ("auth", [password]) | ("auth", [_, password]) => self.auth(password),
            ("hello", words) => self.hello(words),
            ("subscribe" | "ping" | "publish" | "get" | "set" | "auth" | "multi" | "exec" | "discard", _) => {
                Reply::Error(format!("ERR wrong number of arguments for '{name}' command"))
            }
            (_, words) => unknown(&request[0], words),
        }
    }

    /// Executes the subcommands with which a client ends a former connection of its own.
    fn client(&self, words: &[Bytes]) -> Reply {
        let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).to_lowercase()).collect();
        match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["info"] => Reply::bulk(self.client.info()),
            ["kill", "id", id, "addr", address] => match id.parse() {
                Ok(id @ 1..) => Reply::Integer(self.state.kill(id, address)),
                _ => Reply::Error("ERR client-id should be greater than 0".into()),
            },
            ["kill", _, _, ..] => Reply::Error("ERR syntax error".into()),
            [subcommand @ ("info" | "kill"), ..] => {
                Reply::Error(format!("ERR wrong number of arguments for 'client|{subcommand}' command"))
            }
            [] => Reply::Error("ERR wrong number of arguments for 'client' command".into()),
            [subcommand, ..] => Reply::Error(format!("ERR unknown subcommand '{subcommand}'. Try CLIENT HELP.")),
        }
    }

    fn begin(&self) -> Reply {
        let mut transaction = self.transaction.borrow_mut();
        if transaction.is_some() {
            return Reply::Error("ERR MULTI calls can not be nested".into());
        }
        *transaction = Some(Transaction::default());
        Reply::Simple("OK".into())
    }

    /// Queues a request. Of those that clients of a broker send in transactions, only `PUBLISH` is known.
    fn queue(&self, name: &str, request: &[Bytes]) -> Reply {
        let mut transaction = self.transaction.borrow_mut();
        let transaction = transaction.as_mut().expect("the caller has checked that there is one");
        if name == "publish" && request.len() == 3 {
            transaction.requests.push(request.to_vec());
            return Reply::Simple("QUEUED".into());
        }
        transaction.is_damaged = true;
        match name {
            "publish" => self.reply(name, request),
            _ => unknown(&request[0], &request[1..]),
        }
    }

    fn commit(&self) -> Reply {
        match self.transaction.take() {
            None => Reply::Error("ERR EXEC without MULTI".into()),
            Some(Transaction { is_damaged: true, .. }) => {
                Reply::Error("EXECABORT Transaction discarded because of previous errors.".into())
            }
            Some(Transaction { requests, .. }) => {
                Reply::Array(requests.iter().map(|request| self.reply("publish", request)).collect())
            }
        }
    }

    fn discard(&self) -> Reply {
        match self.transaction.take() {
            None => Reply::Error("ERR DISCARD without MULTI".into()),
            Some(_) => Reply::Simple("OK".into()),
        }
    }

    fn pong(&self, words: Option<&Bytes>) -> Reply {
        let echo = words.cloned();
        if self.client.is_subscribed() {
            return Reply::Array(vec![Reply::bulk("pong"), Reply::bulk(echo.unwrap_or_default())]);
        }
        echo.map_or(Reply::Simple("PONG".into()), Reply::bulk)
    }

    fn set(&self, key: &Bytes, value: &Bytes, options: &[Bytes]) -> Reply {
        let expiry_ms = match options {
            [] => None,
            [unit, number] if unit.eq_ignore_ascii_case(b"px") => {
                match std::str::from_utf8(number).ok().and_then(|number| number.parse::<i64>().ok()) {
                    Some(expiry_ms) if expiry_ms > 0 => Some(expiry_ms as u64),
                    Some(_) => return Reply::Error("ERR invalid expire time in 'set' command".into()),
                    None => return Reply::Error("ERR value is not an integer or out of range".into()),
                }
            }
            _ => return Reply::Error("ERR syntax error".into()),
        };
        self.state.set(key.clone(), value.clone(), expiry_ms);
        Reply::Simple("OK".into())
    }

    fn auth(&self, password: &Bytes) -> Reply {
        if !self.state.is_authenticated(Some(password)) {
            return Reply::Error("WRONGPASS invalid username-password pair or user is disabled.".into());
        }
        self.is_authenticated.set(true);
        Reply::Simple("OK".into())
    }

    /// Supports version 2 of the protocol only, which is the version of clients that send no `HELLO`.
    fn hello(&self, words: &[Bytes]) -> Reply {
        let options = words.get(1..).unwrap_or_default();
        if words.first().is_some_and(|version| version != "2") {
            return Reply::Error("NOPROTO unsupported protocol version".into());
        }
        if let [auth, _, password, ..] = options
            && auth.eq_ignore_ascii_case(b"auth")
            && let error @ Reply::Error(_) = self.auth(password)
        {
            return error;
        }
        if !self.is_authenticated.get() {
            let how = "HELLO must be called with the client already authenticated, or with AUTH";
            return Reply::Error(format!("NOAUTH {how}"));
        }
        let fields = [Reply::bulk("server"), Reply::bulk("redis"), Reply::bulk("proto"), Reply::Integer(2)];
        Reply::Array(fields.into())
    }
}

fn unknown(command: &Bytes, words: &[Bytes]) -> Reply {
    let word = |word: &Bytes| format!("'{}' ", String::from_utf8_lossy(word));
    let words: String = words.iter().map(word).collect();
    let command = String::from_utf8_lossy(command);
    Reply::Error(format!("ERR unknown command '{command}', with args beginning with: {words}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;
    use crate::sim::broker::Options;
    use crate::transport::redis::resp::encode_request;

    /// Connects a client.
    fn connect(state: &Rc<State>) -> DuplexStream {
        let (near, far) = tokio::io::duplex(1_024);
        tokio::task::spawn_local(serve(Box::new(far), Rc::clone(state)));
        near
    }

    #[test]
    fn what_has_arrived_from_a_client_that_is_killed_is_not_executed() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let state = Rc::new(State::new(Options::default()));
            let mut killer = connect(&state);
            let mut killed = connect(&state);
            tokio::task::yield_now().await;
            let kill = encode_request(&["CLIENT", "KILL", "ID", "2", "ADDR", "client:2"]);
            killer.write_all(&kill).await.unwrap();
            killed.write_all(&encode_request(&["SET", "key", "late"])).await.unwrap();
            let mut answer = [0; 4];
            killer.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b":1\r\n");
            assert_eq!(killed.read(&mut answer).await.unwrap(), 0);
            assert_eq!(state.get(&Bytes::from_static(b"key")), None);
        });
    }
}
