//! Runs the star on madsim: `star-madsim HOSTS EVERY_MS SECS`. Prints the real seconds that it took.

#[path = "../../../crates/squall-netsim/benches/star/workload.rs"]
mod workload;

use std::time::{Duration, Instant};

use madsim::runtime::Runtime;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;
use workload::{Arrived, Outboxes, Star, serve, spoke};

/// The allocator of the program `squall`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|number| number.parse().expect("a number")).collect();
    let [hosts, every, secs] = arguments[..] else { panic!("three numbers") };
    let star = Star { spokes: hosts as usize - 1, every: Duration::from_millis(every), secs, fans_out: true };
    let began = Instant::now();
    let arrived = Runtime::with_seed_and_config(7, madsim::Config::default()).block_on(run(star));
    println!("{}", began.elapsed().as_secs_f64());
    assert_eq!(arrived, star.lines(), "every line arrives");
}

thread_local! {
    /// The lines that have arrived. Here, because madsim starts a host with a future that is `Send`.
    static ARRIVED: Arrived = Arrived::default();
}

async fn run(star: Star) -> u64 {
    let runtime = madsim::runtime::Handle::current();
    let hub = runtime.create_node().name("hub").ip([10, 0, 0, 1].into()).build();
    hub.spawn(async move {
        let _ = spawn_local(async move {
            let listener = TcpListener::bind("0.0.0.0:9000").await.expect("the port is free");
            let outboxes = Outboxes::default();
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &outboxes, star, ARRIVED.with(Arrived::clone));
            }
        })
        .await;
    });
    sleep(Duration::from_millis(10)).await;
    for n in 0..star.spokes {
        let [high, low] = (n as u16 + 2).to_be_bytes();
        let host = runtime.create_node().name(format!("spoke{n}")).ip([10, 1, high, low].into()).build();
        host.spawn(async move {
            let _ = spawn_local(async move {
                let stream = TcpStream::connect("10.0.0.1:9000").await.expect("the hub listens");
                sleep(Duration::from_secs(1)).await; // by then all are connected
                spoke(stream, n, star, sleep, ARRIVED.with(Arrived::clone)).await;
            })
            .await;
        });
    }
    sleep(Duration::from_secs(star.secs + 2)).await;
    // Each poll of a task takes some simulated time here, so the last lines come late.
    for _ in 0..60 + star.secs {
        if ARRIVED.with(|arrived| arrived.get()) < star.lines() {
            sleep(Duration::from_secs(1)).await;
        }
    }
    ARRIVED.with(|arrived| arrived.get())
}
