//! Hosts without the stack: plain tasks that send each other messages.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use squall::env::{Address, Chance, Network};
use squall::sim::engine::{self, EngineName, LatencyRange, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const PORT: u16 = 9000;
/// About a row on the wire.
const MESSAGE: [u8; 100] = [b'x'; 100];

/// Runs `hosts` hosts for `secs` simulated seconds, in which each sends its share of `messages` to the next one, evenly
/// spaced and no two of them at one time, and waits for no answer.
///
/// # Panics
/// If not every message arrives.
pub fn run(name: EngineName, hosts: usize, secs: u64, messages: u64) {
    let names: Vec<Arc<str>> = (0..hosts).map(|n| Arc::from(format!("host{n}"))).collect();
    let options = Options {
        chance: Chance::from_seed(7),
        hosts: names.clone(),
        latency: LatencyRange { min_us: 1_000, max_us: 5_000 },
        tap: Rc::new(()),
    };
    let each = messages / hosts as u64;
    let arrived = Rc::new(Cell::new(0));
    let count = Rc::clone(&arrived);
    engine::simulate(name, options, |engine| async move {
        for (n, host) in names.iter().enumerate() {
            let (next, arrived) = (Arc::clone(&names[(n + 1) % hosts]), Rc::clone(&count));
            let pause = Duration::from_secs(secs) / u32::try_from(each).expect("there are not that many");
            let offset = pause.mul_f64(n as f64 / hosts as f64);
            engine.start(
                host,
                Box::new(move |network| {
                    Box::pin(async move {
                        tokio::task::spawn_local(listen(Rc::clone(&network), arrived));
                        tokio::time::sleep(Duration::from_millis(10)).await; // until all listen
                        send(network, next, each, offset, pause).await;
                    })
                }),
            );
        }
        tokio::time::sleep(Duration::from_secs(secs + 1)).await;
    });
    assert_eq!(arrived.get(), each * hosts as u64, "every message arrives");
}

async fn listen(network: Rc<dyn Network>, arrived: Rc<Cell<u64>>) {
    let mut listener = network.listen(PORT).await.expect("the port is free");
    let mut stream = listener.accept().await.expect("somebody dials");
    let mut message = MESSAGE;
    while stream.read_exact(&mut message).await.is_ok() {
        arrived.set(arrived.get() + 1);
    }
}

async fn send(network: Rc<dyn Network>, to: Arc<str>, messages: u64, offset: Duration, pause: Duration) {
    let mut stream = network.connect(&Address::new(to, PORT)).await.expect("it listens");
    let began = Instant::now() + offset;
    for n in 0..u32::try_from(messages).expect("there are not that many") {
        tokio::time::sleep_until(began + pause * n).await;
        stream.write_all(&MESSAGE).await.expect("the connection lasts");
    }
    std::future::pending().await
}
