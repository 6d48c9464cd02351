//! A peer that sends faster than an instance can handle. It needs real sockets: on a paused clock no peer gets ahead.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use squall::instance::config::StreamWriters;
use squall::instance::{Config, Instance};
use squall::observer::process_env;
use squall::replication::Consumers;
use squall::transport::{InstanceLocation, RedisConfig};
use squall_env::Noop;
use tokio::task::LocalSet;

use crate::broker::{message, subscribed};
use crate::database;
use crate::deployment::{SECRET, SERVER_NAME};
use crate::memory::Watch;
use crate::ports::free_port;

/// Number of bytes that are sent.
const FLOOD_BYTES: usize = 16 * 1024 * 1024;
/// Maximum memory of the instance during the flood: the bytes of one read, the rows that wait for their follower, and
/// the other allocations meanwhile.
const HELD_BYTES_MAX: usize = 512 * 1024;
/// The last position, after the flood.
const LAST: i64 = 1_000_000_000;

/// Sends the same rows until `FLOOD_BYTES` are sent, and then the last position. `framed` frames a command.
fn flood(peer: &mut TcpStream, framed: fn(&str) -> Vec<u8>) -> io::Result<()> {
    let row = r#"["ev",["$event","!room:squall.test","m.room.message",null,null,null,null,false,false]]"#;
    // Encoded once, so that the sender is fast enough to get ahead.
    let rows = (10..1_000).map(|token| framed(&format!("RDATA events writer1 {token} {row}")));
    let rows: Vec<u8> = rows.flatten().collect();
    for _ in 0..FLOOD_BYTES / rows.len() {
        peer.write_all(&rows)?;
    }
    peer.write_all(&framed(&format!("POSITION events writer1 1 {LAST}")))?;
    // Reads until the instance closes the connection.
    while peer.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

/// Plays a broker that floods a subscriber and answers one ping of a publisher.
fn serve_as_broker(mut client: TcpStream) -> io::Result<()> {
    let mut request = [0; 1024];
    let length = client.read(&mut request)?;
    if String::from_utf8_lossy(&request[..length]).contains("SUBSCRIBE") {
        client.write_all(&subscribed(&request[..length]))?;
        return flood(&mut client, |payload| message(payload).to_vec());
    }
    client.write_all(b"+PONG\r\n")?;
    while client.read(&mut request)? > 0 {}
    Ok(())
}

/// Plays the writer of the rows.
fn serve_as_writer(mut client: TcpStream) -> io::Result<()> {
    client.write_all(format!("SERVER {SERVER_NAME}\nPING 1\nPOSITION events writer1 1 1\n").as_bytes())?;
    flood(&mut client, |command| format!("{command}\n").into_bytes())
}

/// Serves every connection on a thread of its own, whose memory does not count.
#[expect(clippy::disallowed_methods, reason = "the peer is not part of an instance")]
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

/// Starts a master whose other writer listens on `writer_port`, and waits until it has handled the flood.
fn handles_the_flood(writer_port: u16, redis: Option<RedisConfig>, held_max: usize) {
    let held = [free_port(), free_port(), free_port()];
    let [one, other, third] = held.each_ref().map(|listener| listener.local_addr().unwrap().port());
    drop(held);
    let endpoint =
        |replication_port, http_port| InstanceLocation { host: "127.0.0.1".into(), replication_port, http_port };
    let (master, writer1) = (endpoint(one, other), endpoint(writer_port, third));
    let config = Config {
        server_name: SERVER_NAME.into(),
        secret: SECRET.into(),
        instance_map: [("master".into(), master), ("writer1".into(), writer1)].into(),
        stream_writers: StreamWriters { events: vec!["master".into(), "writer1".into()], ..StreamWriters::default() },
        presence: Default::default(),
        redis,
        // The peer that the test plays writes to none.
        shares_database: false,
        limits: Default::default(),
    };
    let env = process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let watch = Watch::begin();
        let starting = Instance::start(
            "master".into(),
            Rc::new(config),
            env,
            database::empty(&database::Delay::default()),
            Consumers::default(),
        );
        let master = starting.await.unwrap();
        let come = async {
            while master.handler().position("events", &"writer1".into()).unwrap().0 < LAST {
                tokio::time::sleep(Duration::from_millis(10)).await;
                stand_still();
            }
        };
        tokio::time::timeout(Duration::from_secs(120), come).await.expect("the instance handles the flood in time");
        watch.assert_below(held_max, "memory");
    });
}

/// Blocks the thread, as a busy machine may, while the kernel's buffers fill.
#[expect(clippy::disallowed_methods, reason = "the point is to block every task")]
fn stand_still() {
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn excess_input_waits_at_the_broker() {
    let redis = RedisConfig::at("127.0.0.1", play(serve_as_broker));
    // With a broker, no instance connects to the writer's port.
    handles_the_flood(1, Some(redis), 4 * HELD_BYTES_MAX); // messages of the `redis` crate take much more than their bytes
}

#[test]
fn excess_input_waits_at_its_writer() {
    handles_the_flood(play(serve_as_writer), None, HELD_BYTES_MAX);
}
