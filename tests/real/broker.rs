//! The simulated broker sends the same replies as a real one, byte for byte.

use std::time::Duration;

use squall::transport::redis::resp::encode_request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deployment::PATIENCE;
use crate::server::{HARD_BYTES, Kind, Server, on_both};

on_both! {
    a_value_is_kept_until_it_expires;
    a_message_is_sent_to_every_subscriber;
    messages_of_a_transaction_are_sent_together_or_not_at_all;
    a_subscriber_may_send_few_commands;
    the_password_is_required;
    hello_authenticates_too;
    a_malformed_request_ends_the_connection;
    a_subscriber_that_does_not_read_is_dropped;
    an_unknown_command_is_an_error_and_keeps_the_connection;
    a_client_ends_a_former_connection;
    no_client_has_an_address_of_before_a_restart;
}

/// A client that compares replies byte for byte.
struct Client(TcpStream);

impl Client {
    async fn connect(server: &Server) -> Self {
        Client(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap())
    }

    async fn send(&mut self, words: &[&str]) {
        self.0.write_all(&encode_request(words)).await.unwrap();
    }

    /// Receives as many bytes as expected, and compares them.
    async fn expect(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await;
        let received = String::from_utf8_lossy(&bytes).into_owned();
        assert!(matches!(read, Ok(Ok(_))), "expected {expected:?}, received {received:?}");
        assert_eq!(received, expected);
    }

    /// Sends a request and checks that the reply is `expected`.
    async fn request(&mut self, words: &[&str], expected: &str) {
        self.send(words).await;
        self.expect(expected).await;
    }

    /// Returns the number and the address by which the broker knows the client.
    async fn id_and_address(&mut self) -> [String; 2] {
        self.send(&["CLIENT", "INFO"]).await;
        let mut bytes = vec![0; 4096];
        let length = self.0.read(&mut bytes).await.unwrap();
        let reply = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let field = |name| reply.split_whitespace().find_map(|field| field.strip_prefix(name)).unwrap().to_owned();
        [field("id="), field("addr=")]
    }

    /// Waits until the broker closes the connection.
    async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let end = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "still connected");
    }
}

async fn a_value_is_kept_until_it_expires(kind: Kind) {
    let server = Server::start(kind, None).await;
    let mut client = Client::connect(&server).await;
    client.request(&["GET", "key"], "$-1\r\n").await;
    client.request(&["SET", "key", "value"], "+OK\r\n").await;
    client.request(&["get", "key"], "$5\r\nvalue\r\n").await;
    client.request(&["SET", "key", "other", "px", "600000"], "+OK\r\n").await;
    client.request(&["GET", "key"], "$5\r\nother\r\n").await;
    client.request(&["SET", "key", "other", "PX", "1"], "+OK\r\n").await;
    // The value has expired long before the end of this pause.
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.request(&["GET", "key"], "$-1\r\n").await;
    client.request(&["SET", "key", "other", "PX", "0"], "-ERR invalid expire time in 'set' command\r\n").await;
    client.request(&["SET", "key", "other", "PX", "x"], "-ERR value is not an integer or out of range\r\n").await;
    client.request(&["SET", "key", "other", "XX", "PX"], "-ERR syntax error\r\n").await;
    client.request(&["SET", "key"], "-ERR wrong number of arguments for 'set' command\r\n").await;
}

async fn a_message_is_sent_to_every_subscriber(kind: Kind) {
    let server = Server::start(kind, None).await;
    let (mut one, mut other) = (Client::connect(&server).await, Client::connect(&server).await);
    let mut publisher = Client::connect(&server).await;
    publisher.request(&["PUBLISH", "a", "no subscriber"], ":0\r\n").await;
    one.request(&["SUBSCRIBE", "a", "b"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    one.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n").await;
    other.request(&["SUBSCRIBE", "a"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    publisher.request(&["PUBLISH", "a", "two\r\nlines"], ":2\r\n").await;
    publisher.request(&["PUBLISH", "b", ""], ":1\r\n").await;
    one.expect("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$10\r\ntwo\r\nlines\r\n").await;
    one.expect("*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$0\r\n\r\n").await;
    other.expect("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$10\r\ntwo\r\nlines\r\n").await;
    one.request(&["UNSUBSCRIBE", "a"], "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    publisher.request(&["PUBLISH", "a", "x"], ":1\r\n").await;
    one.request(&["UNSUBSCRIBE"], "*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n").await;
    one.request(&["UNSUBSCRIBE"], "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n").await;
    one.request(&["PING"], "+PONG\r\n").await;
}

async fn messages_of_a_transaction_are_sent_together_or_not_at_all(kind: Kind) {
    let server = Server::start(kind, None).await;
    let (mut subscriber, mut publisher) = (Client::connect(&server).await, Client::connect(&server).await);
    subscriber.request(&["SUBSCRIBE", "a"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    publisher.request(&["EXEC"], "-ERR EXEC without MULTI\r\n").await;
    publisher.request(&["DISCARD"], "-ERR DISCARD without MULTI\r\n").await;
    publisher.request(&["MULTI"], "+OK\r\n").await;
    publisher.request(&["MULTI"], "-ERR MULTI calls can not be nested\r\n").await;
    publisher.request(&["PUBLISH", "a", "1"], "+QUEUED\r\n").await;
    publisher.request(&["PUBLISH", "a", "2"], "+QUEUED\r\n").await;
    publisher.request(&["EXEC"], "*2\r\n:1\r\n:1\r\n").await;
    publisher.request(&["MULTI"], "+OK\r\n").await;
    publisher.request(&["PUBLISH", "a", "discarded"], "+QUEUED\r\n").await;
    publisher.request(&["DISCARD"], "+OK\r\n").await;
    publisher.request(&["MULTI"], "+OK\r\n").await;
    publisher.request(&["PUBLISH", "a", "damaged"], "+QUEUED\r\n").await;
    publisher.request(&["PUBLISH", "a"], "-ERR wrong number of arguments for 'publish' command\r\n").await;
    publisher.request(&["EXEC"], "-EXECABORT Transaction discarded because of previous errors.\r\n").await;
    let mut lost = Client::connect(&server).await;
    lost.request(&["MULTI"], "+OK\r\n").await;
    lost.request(&["PUBLISH", "a", "lost"], "+QUEUED\r\n").await;
    drop(lost);
    publisher.request(&["PUBLISH", "a", "3"], ":1\r\n").await;
    for payload in ["1", "2", "3"] {
        subscriber.expect(&format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n{payload}\r\n")).await;
    }
}

async fn a_subscriber_may_send_few_commands(kind: Kind) {
    let server = Server::start(kind, None).await;
    let mut client = Client::connect(&server).await;
    client.request(&["PING", "hello"], "$5\r\nhello\r\n").await;
    client.request(&["SUBSCRIBE", "a"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    client.request(&["PING"], "*2\r\n$4\r\npong\r\n$0\r\n\r\n").await;
    client.request(&["PING", "hello"], "*2\r\n$4\r\npong\r\n$5\r\nhello\r\n").await;
    client
        .request(
            &["PUBLISH", "a", "x"],
            "-ERR Can't execute 'publish': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
             this context\r\n",
        )
        .await;
    client.request(&["PING"], "*2\r\n$4\r\npong\r\n$0\r\n\r\n").await;
}

async fn the_password_is_required(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let mut client = Client::connect(&server).await;
    client.request(&["PING"], "-NOAUTH Authentication required.\r\n").await;
    client.request(&["SUBSCRIBE", "a"], "-NOAUTH Authentication required.\r\n").await;
    client.request(&["AUTH", "wrong"], "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    client.request(&["AUTH", "secret"], "+OK\r\n").await;
    client.request(&["PING"], "+PONG\r\n").await;
}

async fn hello_authenticates_too(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let mut early = Client::connect(&server).await;
    // The rest of the reply differs between versions.
    early.request(&["HELLO", "2"], "-NOAUTH HELLO must be called with the client already authenticated").await;
    let mut client = Client::connect(&server).await;
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    client.request(&["HELLO", "2", "AUTH", "default", "wrong"], wrong).await;
    client.request(&["HELLO", "9", "AUTH", "default", "secret"], "-NOPROTO unsupported protocol version\r\n").await;
    client.send(&["HELLO", "2", "AUTH", "default", "secret"]).await;
    // The two brokers reply differently to HELLO. The reply is skipped up to the reply to PING.
    client.send(&["PING"]).await;
    let mut received = Vec::new();
    while !received.ends_with(b"+PONG\r\n") {
        let read = tokio::time::timeout(PATIENCE, client.0.read_buf(&mut received)).await;
        assert!(matches!(read, Ok(Ok(1..))), "{}", String::from_utf8_lossy(&received));
    }
    assert!(received.starts_with(b"*"), "{}", String::from_utf8_lossy(&received));
}

async fn a_malformed_request_ends_the_connection(kind: Kind) {
    let server = Server::start(kind, None).await;
    for (sent, expected) in [
        ("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("*1\r\n+OK\r\n", "-ERR Protocol error: expected '$', got '+'\r\n"),
        ("*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
    ] {
        let mut client = Client::connect(&server).await;
        client.0.write_all(sent.as_bytes()).await.unwrap();
        client.expect(expected).await;
        client.is_closed().await;
    }
}

async fn a_subscriber_that_does_not_read_is_dropped(kind: Kind) {
    let server = Server::start(kind, None).await;
    let (mut slow, mut publisher) = (Client::connect(&server).await, Client::connect(&server).await);
    slow.request(&["SUBSCRIBE", "a"], "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    let payload = "x".repeat(HARD_BYTES / 4);
    // The buffers of the kernel hold some messages besides the broker's own buffer.
    let mut published = 0;
    loop {
        publisher.send(&["PUBLISH", "a", &payload]).await;
        let mut received = [0; 4];
        publisher.0.read_exact(&mut received).await.unwrap();
        match &received {
            b":1\r\n" => published += 1,
            b":0\r\n" => break,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
        assert!(published < 1_000, "a subscriber that reads nothing is still connected");
    }
    slow.is_closed().await;
}

async fn an_unknown_command_is_an_error_and_keeps_the_connection(kind: Kind) {
    let server = Server::start(kind, None).await;
    let mut client = Client::connect(&server).await;
    client.request(&["FROB", "a", "b"], "-ERR unknown command 'FROB', with args beginning with: 'a' 'b' \r\n").await;
    client.request(&["PING"], "+PONG\r\n").await;
}

async fn a_client_ends_a_former_connection(kind: Kind) {
    let server = Server::start(kind, None).await;
    let (mut former, mut client) = (Client::connect(&server).await, Client::connect(&server).await);
    let [id, address] = former.id_and_address().await;
    let kill = |id, address| ["CLIENT", "KILL", "ID", id, "ADDR", address];
    client.request(&kill(&id, "192.0.2.1:1"), ":0\r\n").await;
    former.request(&["PING"], "+PONG\r\n").await;
    client.request(&kill(&id, &address), ":1\r\n").await;
    former.is_closed().await;
    client.request(&kill(&id, &address), ":0\r\n").await;
    client.request(&kill("0", &address), "-ERR client-id should be greater than 0\r\n").await;
    client.request(&kill("x", &address), "-ERR client-id should be greater than 0\r\n").await;
    client.request(&["CLIENT", "KILL", "ID", &id, "ADDR"], "-ERR syntax error\r\n").await;
    client.request(&["CLIENT", "KILL"], "-ERR wrong number of arguments for 'client|kill' command\r\n").await;
    client.request(&["CLIENT", "INFO", "x"], "-ERR wrong number of arguments for 'client|info' command\r\n").await;
    client.request(&["CLIENT"], "-ERR wrong number of arguments for 'client' command\r\n").await;
    client.request(&["CLIENT", "frob"], "-ERR unknown subcommand 'frob'. Try CLIENT HELP.\r\n").await;
}

async fn no_client_has_an_address_of_before_a_restart(kind: Kind) {
    let mut server = Server::start(kind, None).await;
    let mut before = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&server).await;
        let [_, address] = client.id_and_address().await;
        before.push((client, address));
    }
    server.kill().await;
    server.start_again().await;
    for _ in 0..5 {
        let [_, address] = Client::connect(&server).await.id_and_address().await;
        assert!(before.iter().all(|(_, before)| *before != address), "{address} is used again");
    }
}
