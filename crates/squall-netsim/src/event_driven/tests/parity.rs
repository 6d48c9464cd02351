//! The sockets behave as those of `turmoil-net`, another simulated TCP, on which this engine stood at first.

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite};
use turmoil_net::KernelConfig;
use turmoil_net::fixture::ClientServer;
use turmoil_net::shim::tokio::net as reference;

use super::*;
use crate::Side;

/// The time between two steps: everything under way arrives in it.
const STEP: Duration = Duration::from_millis(100);

/// Calls in their order, each by one end of a connection.
type Script = Vec<(Side, Call)>;

/// The results of the calls, with their numbers.
type Results = Rc<RefCell<Vec<(usize, String)>>>;

fn script() -> impl Strategy<Value = Script> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Server)];
    // All that is written fits into the first window: the other implementation opens it again for large reads only.
    let call = prop_oneof![
        4 => (1..4_000_usize).prop_map(Call::Write),
        4 => (1..6_000_usize).prop_map(Call::Read),
        1 => Just(Call::ShutDown),
        1 => Just(Call::Close),
    ];
    prop::collection::vec((side, call), 1..14).prop_map(known_alike)
}

/// The script without the writes to an end that is closed. That implementation acknowledges them. This one answers with a
/// reset, as Linux does.
fn known_alike(mut script: Script) -> Script {
    let mut closed = Vec::new();
    script.retain(|(side, call)| {
        if matches!(call, Call::Close) {
            closed.push(*side);
        }
        !(matches!(call, Call::Write(_)) && closed.iter().any(|other| other != side))
    });
    script
}

/// Makes the calls of one end, each at its time.
async fn play(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    side: Side,
    script: Script,
    began: Instant,
    results: Results,
) {
    let mut stream = Some(stream);
    for (n, (of, call)) in script.into_iter().enumerate() {
        tokio::time::sleep_until(began + STEP * (n as u32 + 1)).await;
        let Some(open) = stream.as_mut().filter(|_| of == side) else { continue };
        let result = match call {
            Call::Write(size) => format!("{:?}", timeout(STEP / 2, open.write(&vec![n as u8; size])).await.map(kind)),
            Call::Read(size) => {
                let mut bytes = vec![0; size];
                let read = timeout(STEP / 2, open.read(&mut bytes)).await.map(kind);
                format!("{read:?} {bytes:?}")
            }
            Call::ShutDown => format!("{:?}", timeout(STEP / 2, open.shutdown()).await.map(kind)),
            Call::Close => {
                stream = None;
                continue;
            }
        };
        results.borrow_mut().push((n, result));
    }
    tokio::time::sleep_until(began + STEP * 20).await;
}

/// The results of a script on this engine.
fn here(script: &Script) -> Vec<(usize, String)> {
    let results = Results::default();
    storm(|engine| {
        let (script, results) = (script.clone(), Rc::clone(&results));
        async move {
            let began = Instant::now();
            let (client, server) = pair(engine).await;
            let client = play(client, Side::Client, script.clone(), began, Rc::clone(&results));
            tokio::join!(client, play(server, Side::Server, script, began, results));
        }
    });
    let mut results = results.take();
    results.sort();
    results
}

/// The results of a script on `turmoil-net`.
fn there(script: &Script) -> Vec<(usize, String)> {
    let results = Results::default();
    let (of_server, of_client) = ((script.clone(), Rc::clone(&results)), (script.clone(), Rc::clone(&results)));
    let server = async move {
        let began = Instant::now();
        let listener = reference::TcpListener::bind(("0.0.0.0", PORT)).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        play(stream, Side::Server, of_server.0, began, of_server.1).await;
    };
    // It counts retransmissions in steps, and would repeat what was not lost.
    let config = KernelConfig::default().retx_threshold(u32::MAX);
    ClientServer::with_config(config).server("10.0.0.1", server).run("10.0.0.2", async move {
        let began = Instant::now();
        tokio::time::sleep(STEP / 4).await; // the server listens by then
        let stream = reference::TcpStream::connect(("10.0.0.1", PORT)).await.unwrap();
        play(stream, Side::Client, of_client.0, began, of_client.1).await;
    });
    let mut results = results.take();
    results.sort();
    results
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn every_call_returns_what_it_returns_there(script in script()) {
        prop_assert_eq!(here(&script), there(&script));
    }
}
