//! The address and the password of the broker that `squall follow` is given.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::deployment::{PATIENCE, Scratch};
use crate::follow::SERVER_NAME;
use crate::follow_program::Program;
use crate::server::{Kind, Server, on_both};

on_both! {
    the_password_may_be_in_each_of_its_places;
    a_broker_may_listen_on_a_unix_socket;
    synapses_configuration_is_enough;
}

/// Checks that `squall follow` subscribes with these arguments and variables.
async fn assert_subscribes(arguments: &[&str], variables: &[(&str, &str)]) {
    let mut program = Program::run(&[arguments, &["--json"]].concat(), variables);
    program.next_object("listening").await;
}

async fn the_password_may_be_in_each_of_its_places(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let scratch = Scratch::new(&format!("follow-password-{kind:?}"));
    let file = scratch.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let url = format!("redis://127.0.0.1:{}/3", server.port);
    let known = ["--server-name", SERVER_NAME, "--redis", &url];
    assert_subscribes(&[&known[..], &["--password-file", file.to_str().unwrap()]].concat(), &[]).await;
    assert_subscribes(&known, &[("SQUALL_REDIS_PASSWORD", "secret")]).await;
    let url = format!("redis://:secret@127.0.0.1:{}", server.port);
    assert_subscribes(&["--server-name", SERVER_NAME, "--redis", &url], &[]).await;
}

async fn a_broker_may_listen_on_a_unix_socket(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let scratch = Scratch::new(&format!("follow-socket-{kind:?}"));
    let path = scratch.path().join("redis.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let port = server.port;
    let requests: Rc<RefCell<Vec<u8>>> = Rc::default();
    let over_socket = Rc::clone(&requests);
    tokio::task::spawn_local(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::task::spawn_local(relay(client, server, Rc::clone(&over_socket)));
        }
    });
    let url = format!("unix://{}?pass=secret", path.display());
    let arguments = ["--server-name", SERVER_NAME, "--redis", &url, "--send-replicate", "--json"];
    let mut program = Program::run(&arguments, &[]);
    program.next_object("listening").await;
    let replicate = async {
        while !String::from_utf8_lossy(&requests.borrow()).contains("\r\nREPLICATE\r\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, replicate).await.expect("the REPLICATE goes over the socket");
}

/// Connects a client with a server, and keeps what the client sends.
async fn relay(client: UnixStream, server: TcpStream, requests: Rc<RefCell<Vec<u8>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let to_end = async {
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            requests.borrow_mut().extend_from_slice(&buffer[..length]);
            to_server.write_all(&buffer[..length]).await.unwrap();
        }
    };
    tokio::select! {
        () = to_end => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

async fn synapses_configuration_is_enough(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let scratch = Scratch::new(&format!("follow-synapse-{kind:?}"));
    let file = scratch.path().join("homeserver.yaml");
    let redis = format!("redis: {{enabled: true, host: 127.0.0.1, port: {}, password: secret}}", server.port);
    std::fs::write(&file, format!("server_name: {SERVER_NAME}\n{redis}\n")).unwrap();
    assert_subscribes(&["--synapse-config", file.to_str().unwrap()], &[]).await;
}
