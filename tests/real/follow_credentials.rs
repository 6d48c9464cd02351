//! The address and the password of the broker that `squall follow` is given.

use tokio::net::{TcpStream, UnixListener};

use crate::deployment::Scratch;
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
    tokio::task::spawn_local(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::task::spawn_local(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let url = format!("unix://{}?pass=secret", path.display());
    assert_subscribes(&["--server-name", SERVER_NAME, "--redis", &url, "--send-replicate"], &[]).await;
}

async fn synapses_configuration_is_enough(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    let scratch = Scratch::new(&format!("follow-synapse-{kind:?}"));
    let file = scratch.path().join("homeserver.yaml");
    let redis = format!("redis: {{enabled: true, host: 127.0.0.1, port: {}, password: secret}}", server.port);
    std::fs::write(&file, format!("server_name: {SERVER_NAME}\n{redis}\n")).unwrap();
    assert_subscribes(&["--synapse-config", file.to_str().unwrap()], &[]).await;
}
