//! The behaviour that every engine shares. The processes act by themselves and note their observations, because the streams
//! of one engine work inside their process only.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::*;
use squall_env::{Address, BoxStream};

const PORT: u16 = 9000;
const SECOND: Duration = Duration::from_secs(1);

/// The notes of the processes, in order.
#[derive(Clone, Default)]
struct Notes(Rc<RefCell<Vec<String>>>);

impl Notes {
    fn add(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    /// Takes the notes made since the last call.
    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Notes every event of the traffic, without its time.
impl Tap for Notes {
    fn connecting(&self, attempt: &Attempt) {
        self.add(format!("{} {} dials {}", attempt.host, attempt.boot, attempt.to));
    }

    fn connect_ended(&self, attempt: &Attempt, result: Result<(), ErrorKind>) {
        self.add(format!("{} {} has dialled {}: {result:?}", attempt.host, attempt.boot, attempt.to));
    }

    fn accepted(&self, end: &End) {
        self.add(format!("{} {} accepts {} on {}", end.host, end.boot, end.peer, end.port));
    }

    fn read(&self, end: &End, bytes: &[u8]) {
        self.add(format!("{} reads {}", end.host, String::from_utf8_lossy(bytes)));
    }

    fn written(&self, end: &End, bytes: &[u8]) {
        self.add(format!("{} writes {}", end.host, String::from_utf8_lossy(bytes)));
    }

    fn ended(&self, end: &End) {
        self.add(format!("{} learns of the end of connection {} on {}", end.host, end.connection, end.port));
    }

    fn closed(&self, end: &End) {
        self.add(format!("{} closes {:?} of connection {}", end.host, end.side, end.connection));
    }
}

/// Runs a world of a client, a server and a bystander on each engine.
fn on_each<F: Future<Output = ()>>(test: impl Fn(EngineName, Rc<dyn Engine>) -> F) {
    for name in EngineName::ALL {
        run(name, Rc::new(()), |engine| test(name, engine));
    }
}

fn run<T, F: Future<Output = T>>(name: EngineName, tap: Rc<dyn Tap>, test: impl FnOnce(Rc<dyn Engine>) -> F) -> T {
    let options = Options {
        seeds: SeedTree::from_seed(7),
        hosts: ["client", "server", "bystander"].map(Arc::from).into(),
        latency: LatencyRange { min_us: 1_000, max_us: 5_000 },
        tap,
    };
    simulate(name, options, test)
}

fn main<F: Future<Output = ()> + 'static>(process: impl FnOnce(Rc<dyn Network>) -> F + 'static) -> Main {
    Box::new(|network| Box::pin(process(network)))
}

/// A process that sends back all that it receives.
fn echo() -> Main {
    main(|network| async move {
        let mut listener = network.listen(PORT).await.unwrap();
        while let Ok(stream) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    })
}

/// A process that dials the server, sends it a number every second, notes each answer and the end, and then dials again, a
/// second later.
fn counter(notes: &Notes) -> Main {
    let notes = notes.clone();
    main(|network| async move {
        for n in 0.. {
            let connected = network.connect(&Address::new("server", PORT)).await;
            let ended = match connected {
                Ok(stream) => count(stream, n, &notes).await,
                Err(error) => error,
            };
            notes.add(format!("{:?}", ended.kind()));
            sleep(SECOND).await;
        }
    })
}

/// Sends `n`0, `n`1 and so on, a second apart.
async fn count(stream: BoxStream, n: u64, notes: &Notes) -> io::Error {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        for i in 0..10 {
            if let Err(error) = write.write_all(&[b'0' + n as u8, b'0' + i]).await {
                return error;
            }
            sleep(SECOND).await;
        }
        std::future::pending().await
    };
    let reading = async {
        let mut bytes = [0; 2];
        loop {
            match read.read_exact(&mut bytes).await {
                Ok(_) => notes.add(String::from_utf8_lossy(&bytes)),
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        biased;
        error = reading => error,
        error = writing => error,
    }
}

/// A client that counts and a server that echoes, half a second after the first number.
async fn counting(engine: &Rc<dyn Engine>) -> Notes {
    let notes = Notes::default();
    engine.start("server", echo());
    sleep(SECOND).await;
    engine.start("client", counter(&notes));
    sleep(SECOND / 2).await;
    assert_eq!(notes.take(), ["00"]);
    notes
}

#[test]
fn both_engines_report_the_same_to_the_tap() {
    let conversation = |name| {
        let notes = Notes::default();
        run(name, Rc::new(notes.clone()), |engine| async move {
            engine.start("server", echo());
            sleep(SECOND).await;
            engine.start(
                "client",
                main(|network| async move {
                    let mut stream = network.connect(&Address::new("server", PORT)).await.unwrap();
                    stream.write_all(b"hello").await.unwrap();
                    stream.read_exact(&mut [0; 5]).await.unwrap();
                    stream.shutdown().await.unwrap();
                    assert_eq!(stream.read(&mut [0; 5]).await.unwrap(), 0);
                    drop(stream);
                    sleep(SECOND).await; // the server drops its end
                    let refused = network.connect(&Address::new("server", PORT + 1)).await;
                    assert_eq!(refused.err().unwrap().kind(), ErrorKind::ConnectionRefused);
                    let unknown = network.connect(&Address::new("nowhere", PORT)).await;
                    assert_eq!(unknown.err().unwrap().kind(), ErrorKind::NotFound);
                }),
            );
            sleep(5 * SECOND).await;
        });
        let mut notes = notes.take();
        notes.sort(); // two hosts may do things at the same time in either order
        notes
    };
    let [one, other] = EngineName::ALL.map(conversation);
    assert_eq!(one.len(), 15, "{one:#?}");
    assert_eq!(one, other);
}

#[test]
fn a_cut_resets_both_ends_of_one_connection() {
    on_each(|name, engine| async move {
        let notes = counting(&engine).await;
        let connections = engine.connections("server", "client");
        assert_eq!(connections.len(), 1, "{name}");
        assert_eq!((&*connections[0].client, &*connections[0].server, connections[0].port), ("client", "server", PORT));
        assert!(engine.connections("server", "bystander").is_empty());
        assert_eq!(engine.connections_to("client", "server", PORT), connections, "{name}");
        for (client, server, port) in
            [("server", "client", PORT), ("client", "server", PORT + 1), ("bystander", "server", PORT)]
        {
            assert_eq!(engine.connections_to(client, server, port), [], "{name}: {client} to {port} of {server}");
        }
        assert!(engine.cut(&connections[0]));
        assert!(!engine.cut(&connections[0]), "{name}: it is not open any more");
        assert!(engine.connections("client", "server").is_empty(), "{name}");
        sleep(2 * SECOND).await;
        assert_eq!(notes.take(), ["ConnectionReset", "10"], "{name}");
        let again = engine.connections("client", "server");
        assert_eq!(again.len(), 1, "{name}: both have forgotten the other one");
        assert!(again[0].id > connections[0].id);
    });
}

#[test]
fn a_stopped_process_says_goodbye_and_its_port_refuses_until_it_starts_again() {
    on_each(|name, engine| async move {
        let notes = counting(&engine).await;
        assert!(engine.is_up("server") && engine.stop("server"));
        assert!(!engine.is_up("server") && !engine.stop("server"), "{name}: there is nothing left to stop");
        assert!(engine.connections("client", "server").is_empty(), "{name}");
        sleep(2 * SECOND).await;
        assert_eq!(notes.take(), ["UnexpectedEof", "ConnectionRefused"], "{name}");
        assert_eq!(engine.boot("server"), 1);
        engine.start("server", echo());
        assert_eq!((engine.is_up("server"), engine.boot("server")), (true, 2));
        sleep(SECOND).await;
        assert_eq!(notes.take(), ["20"], "{name}");
    });
}

#[test]
fn a_power_cut_is_silence_and_after_it_old_connections_are_reset() {
    on_each(|name, engine| async move {
        let notes = counting(&engine).await;
        assert!(engine.power_cut("server"));
        assert!(!engine.is_up("server") && !engine.power_cut("server"), "{name}: there is no power");
        sleep(5 * SECOND).await;
        assert_eq!(notes.take(), [""; 0], "{name}");
        engine.start("server", echo());
        sleep(5 * SECOND).await;
        assert_eq!(notes.take()[..2], ["ConnectionReset", "10"], "{name}");
    });
}

#[test]
fn connecting_to_a_host_without_power_times_out() {
    on_each(|name, engine| async move {
        let notes = Notes::default();
        engine.power_cut("server");
        engine.start("client", counter(&notes));
        sleep(9 * SECOND).await;
        assert_eq!(notes.take(), [""; 0], "{name}");
        sleep(SECOND).await;
        sleep(SECOND / 2).await;
        assert_eq!(notes.take(), ["TimedOut"], "{name}");
    });
}

#[test]
fn packets_that_a_partition_holds_arrive_when_it_is_healed_complete_and_in_order() {
    on_each(|name, engine| async move {
        let notes = counting(&engine).await;
        let both = [("client", "server"), ("server", "client")];
        both.iter().for_each(|(from, to)| engine.partition(from, to));
        sleep(4 * SECOND).await;
        assert_eq!(notes.take(), [""; 0], "{name}");
        assert!(engine.held("client", "server") > 0, "{name}");
        assert_eq!((engine.held("client", "bystander"), engine.held("bystander", "client")), (0, 0));
        both.iter().for_each(|(from, to)| engine.heal(from, to));
        sleep(3 * SECOND).await;
        assert_eq!(notes.take()[..5], ["01", "02", "03", "04", "05"], "{name}");
        assert_eq!(engine.connections("client", "server").len(), 1, "{name}");
    });
}

#[test]
fn a_link_has_the_latency_that_was_set_until_it_is_reset() {
    on_each(|name, engine| async move {
        let notes = counting(&engine).await;
        let sent = engine.sent("client", "server");
        engine.set_latency("client", "server", LatencyRange { min_us: 600_000, max_us: 600_000 });
        sleep(SECOND).await; // half a second after the second number
        assert_eq!(notes.take(), [""; 0], "{name}");
        assert!(engine.sent("client", "server") > sent);
        engine.reset_latency("client", "server");
        sleep(2 * SECOND).await;
        assert_eq!(notes.take(), ["01", "02", "03"], "{name}");
    });
}

#[test]
fn a_process_that_ends_by_itself_stays_up() {
    on_each(|name, engine| async move {
        engine.start("server", main(|_| async {}));
        sleep(SECOND).await;
        assert!(engine.is_up("server") && !engine.is_up("client"), "{name}");
    });
}

#[test]
fn a_process_that_is_started_and_stopped_at_one_instant_does_nothing() {
    on_each(|name, engine| async move {
        let notes = Notes::default();
        for end in [|engine: &dyn Engine| engine.stop("client"), |engine: &dyn Engine| engine.power_cut("client")] {
            engine.start("client", counter(&notes));
            assert!(end(&*engine));
            engine.start("client", counter(&notes));
            assert!(end(&*engine));
            sleep(15 * SECOND).await;
            assert!(!engine.is_up("client"));
        }
        assert_eq!((notes.take(), engine.boot("client")), (vec![], 4), "{name}");
    });
}

#[test]
fn simulated_time_is_the_same_everywhere() {
    on_each(|name, engine| async move {
        let notes = Notes::default();
        let clock = |notes: &Notes| {
            let notes = notes.clone();
            main(move |_| async move {
                sleep(SECOND).await;
                notes.add(format!("{:?}", time::elapsed()));
            })
        };
        sleep(SECOND).await;
        engine.start("client", clock(&notes));
        sleep(SECOND / 4).await;
        engine.power_cut("client");
        engine.start("client", clock(&notes));
        sleep(SECOND).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(notes.take(), ["2.25s"], "{name}");
        assert_eq!(time::elapsed(), Duration::from_millis(2251), "{name}");
    });
}

/// Runs `client` as the process of a host on each engine, and returns the messages of the panics that ended the runs.
fn panics_of(client: fn() -> Main) -> Vec<String> {
    let panic_on = |name| {
        let run_it = || {
            run(name, Rc::new(()), |engine| async move {
                engine.start("server", echo());
                engine.start("client", client());
                sleep(SECOND).await;
            });
        };
        let panic = std::panic::catch_unwind(run_it).expect_err("a panic ends the run");
        run(name, Rc::new(()), |_| sleep(SECOND)); // the thread is as it was
        match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast::<&str>().expect("a panic has a message").to_string(),
        }
    };
    EngineName::ALL.map(panic_on).into()
}

#[test]
fn a_panic_in_a_process_ends_the_run_with_its_message() {
    assert_eq!(panics_of(|| main(|_| async { panic!("a bug") })), ["a bug", "a bug"]);
}

#[test]
fn a_panic_in_a_task_ends_the_run_also_where_the_handle_was_dropped() {
    let spawning = || {
        main(|_| async {
            drop(tokio::task::spawn_local(async {
                sleep(SECOND / 4).await;
                panic!("a bug after {} ms", 250);
            }));
            std::future::pending().await
        })
    };
    assert_eq!(panics_of(spawning), ["a bug after 250 ms", "a bug after 250 ms"]);
}

#[test]
fn a_panic_in_a_task_that_a_library_spawns_on_the_runtime_ends_the_run() {
    #[expect(clippy::disallowed_methods, reason = "as a library does")]
    fn spawning() -> Main {
        main(|_| async {
            drop(tokio::spawn(async { panic!("a library's bug") }));
            std::future::pending().await
        })
    }
    assert_eq!(panics_of(spawning), ["a library's bug", "a library's bug"]);
}

#[test]
fn a_panic_on_another_thread_ends_no_run() {
    on_each(|_, _| async {
        #[expect(clippy::disallowed_methods, reason = "a thread outside of the simulation")]
        let panicked = std::thread::spawn(|| panic!("elsewhere")).join();
        assert!(panicked.is_err());
        sleep(SECOND).await;
    });
}

#[test]
fn the_event_driven_engine_injects_every_fault_and_turmoil_returns_unsupported() {
    on_each(|name, engine| async move {
        counting(&engine).await;
        let connection = &engine.connections("client", "server")[0];
        let slow = Some(SlowReader { bytes: 1, pause: SECOND });
        let results = [
            engine.slow_reader("server", slow),
            engine.set_bandwidth("server", "client", Some(1)),
            engine.freeze("server").map(drop),
            engine.thaw("server").map(drop),
            engine.half_open("server", "client", PORT).map(drop),
            engine.stall("server", "client", PORT).map(drop),
            engine.answer(connection),
            engine.release(connection).map(drop),
        ];
        let expected = if name == EngineName::EventDriven { Ok(()) } else { Err(Unsupported) };
        assert_eq!(results, [expected; 8], "{name}");
    });
}

#[test]
fn packets_that_turmoil_loses_one_way_never_arrive_and_neither_end_notices() {
    run(EngineName::Turmoil, Rc::new(()), |engine| async move {
        let notes = counting(&engine).await;
        engine.partition("server", "client");
        sleep(2 * SECOND).await;
        engine.heal("server", "client");
        sleep(4 * SECOND).await;
        assert_eq!(notes.take(), [""; 0]);
        assert_eq!(engine.connections("client", "server").len(), 1);
        assert!(engine.held("server", "client") > 0);
        assert_eq!(engine.held("client", "server"), 0);
    });
}
