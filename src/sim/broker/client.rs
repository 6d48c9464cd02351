//! One client of the broker, from its connection to its end.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::resp::{Reply, Requests};
use super::state::{Client, State};
use crate::env::BoxStream;

/// Serves one client until either end has enough.
pub async fn serve(stream: BoxStream, state: Rc<State>) {
    let (read_half, write_half) = tokio::io::split(stream);
    let client = state.connected();
    let session =
        Session { client: Rc::clone(&client), is_let_in: Cell::new(state.lets_in(None)), state: Rc::clone(&state) };
    // However it ended, the other end sees the connection close.
    let _ = tokio::select! {
        biased;
        ended = session.listen(read_half) => ended,
        ended = speak(&client, write_half) => ended,
        () = client.dropped() => Ok(()),
    };
    state.disconnected(&client);
}

async fn speak(client: &Client, mut stream: WriteHalf<BoxStream>) -> io::Result<()> {
    while let Some(mut bytes) = client.outgoing().await {
        stream.write_all_buf(&mut bytes).await?;
    }
    Ok(())
}

struct Session {
    client: Rc<Client>,
    is_let_in: Cell<bool>,
    state: Rc<State>,
}

impl Session {
    async fn listen(&self, mut stream: ReadHalf<BoxStream>) -> io::Result<()> {
        let mut requests = Requests::default();
        loop {
            if stream.read_buf(requests.buffer()).await? == 0 {
                return Ok(());
            }
            loop {
                match requests.next_request() {
                    Ok(Some(request)) => self.answer(&request),
                    Ok(None) => break,
                    Err(error) => {
                        self.client.send(&Reply::Error(format!("ERR {error}")));
                        self.client.hang_up();
                        return std::future::pending().await;
                    }
                }
            }
        }
    }

    fn answer(&self, request: &[Bytes]) {
        let (command, words) = request.split_first().expect("a request has words");
        let name = String::from_utf8_lossy(command).to_lowercase();
        if !self.is_let_in.get() && !["auth", "hello", "quit"].contains(&&*name) {
            return self.client.send(&Reply::Error("NOAUTH Authentication required.".into()));
        }
        if self.client.is_subscribed() && !["subscribe", "unsubscribe", "ping", "quit"].contains(&&*name) {
            let allowed = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
            return self.client.send(&Reply::Error(format!("ERR Can't execute '{name}': {allowed}")));
        }
        let reply = match (&*name, words) {
            ("subscribe", [_, ..]) => return self.state.subscribe(&self.client, words),
            ("unsubscribe", _) => return self.state.unsubscribe(&self.client, words),
            ("ping", [] | [_]) => self.pong(words.first()),
            ("publish", [channel, payload]) => Reply::Integer(self.state.publish(channel, payload)),
            ("get", [key]) => Reply::Bulk(self.state.get(key)),
            ("set", [key, value, options @ ..]) => self.set(key, value, options),
            ("auth", [password]) | ("auth", [_, password]) => self.auth(password),
            ("hello", words) => self.hello(words),
            ("subscribe" | "ping" | "publish" | "get" | "set" | "auth", _) => {
                Reply::Error(format!("ERR wrong number of arguments for '{name}' command"))
            }
            _ => unknown(command, words),
        };
        self.client.send(&reply);
    }

    fn pong(&self, words: Option<&Bytes>) -> Reply {
        let said = words.cloned();
        if self.client.is_subscribed() {
            return Reply::Array(vec![Reply::bulk("pong"), Reply::Bulk(Some(said.unwrap_or_default()))]);
        }
        said.map_or(Reply::Simple("PONG".into()), |said| Reply::Bulk(Some(said)))
    }

    fn set(&self, key: &Bytes, value: &Bytes, options: &[Bytes]) -> Reply {
        let for_ms = match options {
            [] => None,
            [unit, number] if unit.eq_ignore_ascii_case(b"px") => {
                match std::str::from_utf8(number).ok().and_then(|number| number.parse::<i64>().ok()) {
                    Some(for_ms) if for_ms > 0 => Some(for_ms as u64),
                    Some(_) => return Reply::Error("ERR invalid expire time in 'set' command".into()),
                    None => return Reply::Error("ERR value is not an integer or out of range".into()),
                }
            }
            _ => return Reply::Error("ERR syntax error".into()),
        };
        self.state.set(key.clone(), value.clone(), for_ms);
        Reply::Simple("OK".into())
    }

    fn auth(&self, password: &Bytes) -> Reply {
        if !self.state.lets_in(Some(password)) {
            let why = "WRONGPASS invalid username-password pair or user is disabled.";
            return Reply::Error(why.into());
        }
        self.is_let_in.set(true);
        Reply::Simple("OK".into())
    }

    /// Only the older of the two versions of the protocol, which is what a client speaks that says nothing.
    fn hello(&self, words: &[Bytes]) -> Reply {
        let (version, options) = words.split_first().map_or((None, words), |(version, rest)| (Some(version), rest));
        if version.is_some_and(|version| version != "2") {
            return Reply::Error("NOPROTO unsupported protocol version".into());
        }
        if let [auth, _, password, ..] = options
            && auth.eq_ignore_ascii_case(b"auth")
            && let error @ Reply::Error(_) = self.auth(password)
        {
            return error;
        }
        if !self.is_let_in.get() {
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
