//! A broker in a hurry, on real sockets: only there does it get ahead.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use squall::env::network::TokioNetwork;
use squall::env::{Chance, Env, Scope, Silent, SystemClock};
use squall::instance::config::{Endpoint, RedisConfig, StreamWriters};
use squall::instance::{Config, Instance};
use squall::replication::Consumers;
use tokio::task::LocalSet;

use crate::broker::{acknowledged, message};
use crate::database;
use crate::deployment::{SECRET, SERVER_NAME};
use crate::memory::Watch;

/// How much the broker sends.
const FLOOD_BYTES: usize = 64 * 1024 * 1024;
/// What may be held of it: what is read at once and the rows of that which wait for their feed, and everything else that
/// the instance needs meanwhile.
const HELD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The last position, after the flood.
const LAST: i64 = 1_000_000_000;

/// Serves one client of the broker: whoever subscribes is told far more than can be handled at once, and nobody else
/// anything but that the broker is there.
fn serve(mut client: TcpStream) -> std::io::Result<()> {
    let mut asked = [0; 1024];
    let length = client.read(&mut asked)?;
    if !String::from_utf8_lossy(&asked[..length]).contains("SUBSCRIBE") {
        client.write_all(b"+PONG\r\n")?;
    } else {
        client.write_all(acknowledged().as_bytes())?;
        let (mut sent, mut token) = (0, 10);
        while sent < FLOOD_BYTES {
            let mut piece = String::new();
            for _ in 0..500 {
                token += 1;
                let row = r#"["ev",["$event","!room:squall.test","m.room.message",null,null,null,null,false,false]]"#;
                piece += &message(&format!("RDATA events writer1 {token} {row}"));
            }
            client.write_all(piece.as_bytes())?;
            sent += piece.len();
        }
        client.write_all(message(&format!("POSITION events writer1 1 {LAST}")).as_bytes())?;
    }
    // Until the instance hangs up.
    while client.read(&mut asked)? > 0 {}
    Ok(())
}

/// Plays a broker from now on, on threads of its own, whose memory does not count.
#[expect(clippy::disallowed_methods, reason = "a broker that waits for nobody is no part of an instance")]
fn play_broker() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || serve(client.unwrap()));
        }
    });
    port
}

#[test]
fn what_comes_faster_than_it_is_handled_waits_with_the_broker() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let held = [free(), free(), free(), free()];
    let [one, other, third, fourth] = held.each_ref().map(|listener| listener.local_addr().unwrap().port());
    drop(held);
    let endpoint = |replication_port, http_port| Endpoint { host: "127.0.0.1".into(), replication_port, http_port };
    let config = Config {
        server_name: SERVER_NAME.into(),
        secret: SECRET.into(),
        instance_map: [("master".into(), endpoint(one, other)), ("writer1".into(), endpoint(third, fourth))].into(),
        stream_writers: StreamWriters { events: vec!["master".into(), "writer1".into()], ..StreamWriters::default() },
        presence: Default::default(),
        redis: Some(RedisConfig { host: "127.0.0.1".into(), port: play_broker(), password: None }),
    };
    let env = Env {
        network: Rc::new(TokioNetwork),
        clock: Rc::new(SystemClock),
        chance: Chance::from_seed(1),
        observer: Rc::new(Silent),
        tasks: Scope::new(Rc::new(Silent)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let watch = Watch::begin();
        let starting = Instance::start("master".into(), Rc::new(config), env, database::empty(), Consumers::default());
        let master = starting.await.unwrap();
        let flooded = async {
            while master.handler().position("events", &"writer1".into()).unwrap().0 < LAST {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), flooded).await.expect("it gets through");
        assert!(watch.peak() < HELD_BYTES_MAX, "{} bytes held, more than {HELD_BYTES_MAX}", watch.peak());
    });
}
