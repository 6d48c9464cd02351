//! Hosts without the stack: tasks that send messages to each other.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use squall_env::{Address, Network, SeedTree};
use squall_netsim::{self as engine, EngineName, LatencyRange, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const PORT: u16 = 9000;
/// A message of about the size of a row on the wire.
const MESSAGE: [u8; 100] = [b'x'; 100];

/// Runs `hosts` hosts for `secs` simulated seconds. Each sends its share of `messages` to the next one, evenly spaced, and
/// waits for no answer. No two hosts send at the same time.
///
/// # Panics
/// Panics if a message does not arrive.
pub(crate) fn run(name: EngineName, hosts: usize, secs: u64, messages: u64) {
    let names: Vec<Arc<str>> = (0..hosts).map(|n| Arc::from(format!("host{n}"))).collect();
    let options = Options {
        seeds: SeedTree::from_seed(7),
        hosts: names.clone(),
        latency: LatencyRange { min_us: 1_000, max_us: 5_000 },
        tap: Rc::new(()),
    };
    let each = messages / hosts as u64;
    let arrived = Rc::new(Cell::new(0));
    let count = Rc::clone(&arrived);
    engine::simulate(name, options, |engine| async move {
        for (n, host) in names.iter().enumerate() {
            let next = Arc::clone(&names[(n + 1) % hosts]);
            let arrived = Rc::clone(&count);
            let pause = Duration::from_secs(secs) / u32::try_from(each).expect("there are not that many");
            let offset = pause.mul_f64(n as f64 / hosts as f64);
            engine.start(
                host,
                Box::new(move |network| {
                    Box::pin(async move {
                        tokio::task::spawn_local(listen(Rc::clone(&network), arrived));
                        tokio::time::sleep(Duration::from_millis(10)).await; // every host listens by then
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
    let mut stream = listener.accept().await.expect("the host before this one connects");
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
