//! A service on the simulated network: a server that counts, a client that retries, and a power cut.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use squall_env::{Address, BoxStream, Network, SeedTree};
use squall_netsim::{Engine, EngineName, LatencyRange, Main, Options, simulate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

const PORT: u16 = 7000;

// ANCHOR: service
/// Counts the requests that it has answered since it started.
async fn serve(network: Rc<dyn Network>) -> std::io::Result<()> {
    let mut listener = network.listen(PORT).await?;
    let mut count = 0;
    loop {
        let mut stream = listener.accept().await?;
        while stream.read_u8().await.is_ok() {
            count += 1;
            if stream.write_u8(count).await.is_err() {
                break;
            }
        }
    }
}

/// Sends a request every second, reconnects after a failure, and records each answer.
async fn poll(network: Rc<dyn Network>, answers: Rc<RefCell<Vec<u8>>>) {
    loop {
        if let Ok(stream) = network.connect(&Address::new("server", PORT)).await {
            poll_on(stream, &answers).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
// ANCHOR_END: service

async fn poll_on(mut stream: BoxStream, answers: &RefCell<Vec<u8>>) {
    while stream.write_u8(1).await.is_ok() {
        let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await else { return };
        answers.borrow_mut().push(answer);
        sleep(Duration::from_secs(1)).await;
    }
}

// ANCHOR: run
/// Returns the answers that the client got in a minute in which the server loses its power for ten seconds.
fn power_cut(seed: u64) -> Vec<u8> {
    let answers = Rc::new(RefCell::new(Vec::new()));
    let options = Options {
        seeds: SeedTree::from_seed(seed),
        hosts: vec![Arc::from("server"), Arc::from("client")],
        latency: LatencyRange { min_us: 500, max_us: 20_000 },
        tap: Rc::new(()),
    };
    simulate(EngineName::EventDriven, options, async |engine: Rc<dyn Engine>| {
        engine.start("server", server());
        engine.start("client", client(Rc::clone(&answers)));
        sleep(Duration::from_secs(30)).await;
        engine.power_cut("server");
        sleep(Duration::from_secs(10)).await;
        engine.start("server", server());
        sleep(Duration::from_secs(20)).await;
    });
    answers.take()
}

/// Returns the server's process.
fn server() -> Main {
    Box::new(|network| Box::pin(async { serve(network).await.expect("the port is free") }))
}

/// Returns the client's process.
fn client(answers: Rc<RefCell<Vec<u8>>>) -> Main {
    Box::new(|network| Box::pin(poll(network, answers)))
}

#[test]
fn a_power_cut_resets_the_count() {
    for seed in 0..20 {
        let answers = power_cut(seed);
        assert!(answers.contains(&25), "the server counted before the power cut: {answers:?}");
        assert_eq!(answers.iter().filter(|answer| **answer == 1).count(), 2, "it counted anew after it");
        assert_eq!(answers, power_cut(seed), "the same seed gives the same run");
    }
}
// ANCHOR_END: run
