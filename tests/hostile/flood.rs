//! Whoever sends faster than anybody can handle it, on real sockets: only there do they get ahead.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use squall::env::{Env, Silent};
use squall::instance::config::{Endpoint, RedisConfig, StreamWriters};
use squall::instance::{Config, Instance};
use squall::replication::Consumers;
use tokio::task::LocalSet;

use crate::broker::{acknowledged, message};
use crate::database;
use crate::deployment::{SECRET, SERVER_NAME};
use crate::memory::Watch;

/// How much is sent.
const FLOOD_BYTES: usize = 16 * 1024 * 1024;
/// What may be held of it: what is read at once and the rows of that which wait for their feed, and everything else that
/// the instance needs meanwhile.
const HELD_BYTES_MAX: usize = 512 * 1024;
/// The last position, after the flood.
const LAST: i64 = 1_000_000_000;

/// Rows until it is enough, most of them again and again, each as `framed`; and then the last position.
fn flood(peer: &mut TcpStream, framed: fn(&str) -> String) -> io::Result<()> {
    let row = r#"["ev",["$event","!room:squall.test","m.room.message",null,null,null,null,false,false]]"#;
    // Made once: whoever had to make them would not be ahead.
    let rows: String = (10..1_000).map(|token| framed(&format!("RDATA events writer1 {token} {row}"))).collect();
    for _ in 0..FLOOD_BYTES / rows.len() {
        peer.write_all(rows.as_bytes())?;
    }
    peer.write_all(framed(&format!("POSITION events writer1 1 {LAST}")).as_bytes())?;
    // Until the instance hangs up.
    while peer.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

/// As a broker: whoever subscribes is flooded, and nobody else told anything but that the broker is there.
fn serve_as_broker(mut client: TcpStream) -> io::Result<()> {
    let mut asked = [0; 1024];
    let length = client.read(&mut asked)?;
    if String::from_utf8_lossy(&asked[..length]).contains("SUBSCRIBE") {
        client.write_all(acknowledged().as_bytes())?;
        return flood(&mut client, message);
    }
    client.write_all(b"+PONG\r\n")?;
    while client.read(&mut asked)? > 0 {}
    Ok(())
}

/// As the writer of the rows.
fn serve_as_writer(mut client: TcpStream) -> io::Result<()> {
    client.write_all(format!("SERVER {SERVER_NAME}\nPING 1\nPOSITION events writer1 1 1\n").as_bytes())?;
    flood(&mut client, |command| format!("{command}\n"))
}

/// Serves whoever connects, from now on, on threads of its own, whose memory does not count.
#[expect(clippy::disallowed_methods, reason = "whoever waits for nobody is no part of an instance")]
fn play(serve: fn(TcpStream) -> io::Result<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || serve(client.unwrap()));
        }
    });
    port
}

/// Starts a master whose only writer besides itself listens on `writer_port`, and waits until it has come through.
fn come_through(writer_port: u16, redis: Option<RedisConfig>, held_max: usize) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let held = [free(), free(), free()];
    let [one, other, third] = held.each_ref().map(|listener| listener.local_addr().unwrap().port());
    drop(held);
    let endpoint = |replication_port, http_port| Endpoint { host: "127.0.0.1".into(), replication_port, http_port };
    let (master, writer1) = (endpoint(one, other), endpoint(writer_port, third));
    let config = Config {
        server_name: SERVER_NAME.into(),
        secret: SECRET.into(),
        instance_map: [("master".into(), master), ("writer1".into(), writer1)].into(),
        stream_writers: StreamWriters { events: vec!["master".into(), "writer1".into()], ..StreamWriters::default() },
        presence: Default::default(),
        redis,
    };
    let env = Env::of_process(Ipv4Addr::LOCALHOST.into(), Rc::new(Silent));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let watch = Watch::begin();
        let starting = Instance::start("master".into(), Rc::new(config), env, database::empty(), Consumers::default());
        let master = starting.await.unwrap();
        let come = async {
            while master.handler().position("events", &"writer1".into()).unwrap().0 < LAST {
                tokio::time::sleep(Duration::from_millis(10)).await;
                stand_still();
            }
        };
        tokio::time::timeout(Duration::from_secs(120), come).await.expect("it gets through");
        assert!(watch.peak() < held_max, "{} bytes held, more than {held_max}", watch.peak());
    });
}

/// As a busy machine does to a process now and then; meanwhile the kernel's buffers fill.
#[expect(clippy::disallowed_methods, reason = "a process that stands still lets nobody else run")]
fn stand_still() {
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn what_comes_faster_than_it_is_handled_waits_with_the_broker() {
    let redis = RedisConfig { host: "127.0.0.1".into(), port: play(serve_as_broker), password: None, tls: None };
    // Nobody connects to the writer.
    come_through(1, Some(redis), 4 * HELD_BYTES_MAX); // messages of the `redis` crate take much more than their bytes
}

#[test]
fn what_comes_faster_than_it_is_handled_waits_with_its_writer() {
    come_through(play(serve_as_writer), None, HELD_BYTES_MAX);
}
