//! The storm's broker answers as a real one does, byte for byte where clients can see it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deployment::PATIENCE;
use crate::server::{HARD_BYTES, Kind, Server, on_both};

on_both! {
    what_was_set_is_there_until_it_expires;
    a_message_comes_to_everybody_who_has_subscribed;
    whoever_has_subscribed_may_only_listen;
    nobody_is_let_in_without_the_password;
    hello_lets_in_too;
    what_is_no_request_ends_the_connection;
    a_subscriber_who_does_not_read_is_dropped;
    an_unknown_command_is_an_error_and_nothing_else;
}

/// A client that speaks bytes.
struct Client(TcpStream);

impl Client {
    async fn connect(server: &Server) -> Self {
        Client(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap())
    }

    async fn send(&mut self, words: &[&str]) {
        let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
        let request = format!("*{}\r\n{}", words.len(), words.iter().map(word).collect::<String>());
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads so much, and wants it to be this.
    async fn hears(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await;
        let heard = String::from_utf8_lossy(&bytes).into_owned();
        assert!(matches!(read, Ok(Ok(_))), "expected {expected:?}, heard {heard:?}");
        assert_eq!(heard, expected);
    }

    async fn asks(&mut self, words: &[&str], expected: &str) {
        self.send(words).await;
        self.hears(expected).await;
    }

    /// Reads to the end.
    async fn is_hung_up_on(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end too.
        let end = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "still connected");
    }
}

async fn what_was_set_is_there_until_it_expires(kind: Kind) {
    let server = Server::start(kind, None).await;
    let mut client = Client::connect(&server).await;
    client.asks(&["GET", "key"], "$-1\r\n").await;
    client.asks(&["SET", "key", "value"], "+OK\r\n").await;
    client.asks(&["get", "key"], "$5\r\nvalue\r\n").await;
    client.asks(&["SET", "key", "other", "px", "600000"], "+OK\r\n").await;
    client.asks(&["GET", "key"], "$5\r\nother\r\n").await;
    client.asks(&["SET", "key", "other", "PX", "1"], "+OK\r\n").await;
    // Whenever that is, it is gone some time later.
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.asks(&["GET", "key"], "$-1\r\n").await;
    client.asks(&["SET", "key", "other", "PX", "0"], "-ERR invalid expire time in 'set' command\r\n").await;
    client.asks(&["SET", "key", "other", "PX", "x"], "-ERR value is not an integer or out of range\r\n").await;
    client.asks(&["SET", "key", "other", "XX", "PX"], "-ERR syntax error\r\n").await;
    client.asks(&["SET", "key"], "-ERR wrong number of arguments for 'set' command\r\n").await;
}

async fn a_message_comes_to_everybody_who_has_subscribed(kind: Kind) {
    let server = Server::start(kind, None).await;
    let (mut one, mut other) = (Client::connect(&server).await, Client::connect(&server).await);
    let mut publisher = Client::connect(&server).await;
    publisher.asks(&["PUBLISH", "a", "nobody hears it"], ":0\r\n").await;
    one.asks(&["SUBSCRIBE", "a", "b"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    one.hears("*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n").await;
    other.asks(&["SUBSCRIBE", "a"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    publisher.asks(&["PUBLISH", "a", "two\r\nlines"], ":2\r\n").await;
    publisher.asks(&["PUBLISH", "b", ""], ":1\r\n").await;
    one.hears("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$10\r\ntwo\r\nlines\r\n").await;
    one.hears("*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$0\r\n\r\n").await;
    other.hears("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$10\r\ntwo\r\nlines\r\n").await;
    one.asks(&["UNSUBSCRIBE", "a"], "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    publisher.asks(&["PUBLISH", "a", "x"], ":1\r\n").await;
    one.asks(&["UNSUBSCRIBE"], "*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n").await;
    one.asks(&["UNSUBSCRIBE"], "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n").await;
    one.asks(&["PING"], "+PONG\r\n").await;
}

async fn whoever_has_subscribed_may_only_listen(kind: Kind) {
    let server = Server::start(kind, None).await;
    let mut client = Client::connect(&server).await;
    client.asks(&["PING", "hello"], "$5\r\nhello\r\n").await;
    client.asks(&["SUBSCRIBE", "a"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    client.asks(&["PING"], "*2\r\n$4\r\npong\r\n$0\r\n\r\n").await;
    client.asks(&["PING", "hello"], "*2\r\n$4\r\npong\r\n$5\r\nhello\r\n").await;
    client
        .asks(
            &["PUBLISH", "a", "x"],
            "-ERR Can't execute 'publish': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
             this context\r\n",
        )
        .await;
    client.asks(&["PING"], "*2\r\n$4\r\npong\r\n$0\r\n\r\n").await;
}

async fn nobody_is_let_in_without_the_password(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let mut client = Client::connect(&server).await;
    client.asks(&["PING"], "-NOAUTH Authentication required.\r\n").await;
    client.asks(&["SUBSCRIBE", "a"], "-NOAUTH Authentication required.\r\n").await;
    client.asks(&["AUTH", "wrong"], "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    client.asks(&["AUTH", "secret"], "+OK\r\n").await;
    client.asks(&["PING"], "+PONG\r\n").await;
}

async fn hello_lets_in_too(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let mut early = Client::connect(&server).await;
    // How it goes on differs between versions.
    early.asks(&["HELLO", "2"], "-NOAUTH HELLO must be called with the client already authenticated").await;
    let mut client = Client::connect(&server).await;
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    client.asks(&["HELLO", "2", "AUTH", "default", "wrong"], wrong).await;
    client.asks(&["HELLO", "9", "AUTH", "default", "secret"], "-NOPROTO unsupported protocol version\r\n").await;
    client.send(&["HELLO", "2", "AUTH", "default", "secret"]).await;
    // What it says of itself is its own; it ends with what comes next.
    client.send(&["PING"]).await;
    let mut heard = Vec::new();
    while !heard.ends_with(b"+PONG\r\n") {
        let read = tokio::time::timeout(PATIENCE, client.0.read_buf(&mut heard)).await;
        assert!(matches!(read, Ok(Ok(1..))), "{}", String::from_utf8_lossy(&heard));
    }
    assert!(heard.starts_with(b"*"), "{}", String::from_utf8_lossy(&heard));
}

async fn what_is_no_request_ends_the_connection(kind: Kind) {
    let server = Server::start(kind, None).await;
    for (sent, expected) in [
        ("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("*1\r\n+OK\r\n", "-ERR Protocol error: expected '$', got '+'\r\n"),
        ("*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
    ] {
        let mut client = Client::connect(&server).await;
        client.0.write_all(sent.as_bytes()).await.unwrap();
        client.hears(expected).await;
        client.is_hung_up_on().await;
    }
}

async fn a_subscriber_who_does_not_read_is_dropped(kind: Kind) {
    let server = Server::start(kind, None).await;
    let (mut slow, mut publisher) = (Client::connect(&server).await, Client::connect(&server).await);
    slow.asks(&["SUBSCRIBE", "a"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    let payload = "x".repeat(HARD_BYTES / 4);
    // What the kernels hold does not count.
    let mut published = 0;
    loop {
        publisher.send(&["PUBLISH", "a", &payload]).await;
        let mut heard = [0; 4];
        publisher.0.read_exact(&mut heard).await.unwrap();
        match &heard {
            b":1\r\n" => published += 1,
            b":0\r\n" => break,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
        assert!(published < 1_000, "a subscriber that reads nothing is still there");
    }
    slow.is_hung_up_on().await;
}

async fn an_unknown_command_is_an_error_and_nothing_else(kind: Kind) {
    let server = Server::start(kind, None).await;
    let mut client = Client::connect(&server).await;
    client.asks(&["FROB", "a", "b"], "-ERR unknown command 'FROB', with args beginning with: 'a' 'b' \r\n").await;
    client.asks(&["PING"], "+PONG\r\n").await;
}
