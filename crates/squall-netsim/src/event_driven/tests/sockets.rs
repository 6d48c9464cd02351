//! Sockets, and their traffic as the tap observes it.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;

/// A tap that records every event as text.
#[derive(Default)]
struct Recorder {
    events: RefCell<Vec<String>>,
}

impl Recorder {
    fn note(&self, what: &str, host: &str, boot: u64, id: u64, detail: impl std::fmt::Debug) {
        self.events.borrow_mut().push(format!("{what} {host}/{boot} #{id} {detail:?}"));
    }

    fn events(&self) -> Vec<String> {
        self.events.borrow().clone()
    }
}

impl Tap for Recorder {
    fn connecting(&self, attempt: &Attempt) {
        self.note("connecting", &attempt.host, attempt.boot, attempt.id, attempt.to.to_string());
    }
    fn connect_ended(&self, attempt: &Attempt, result: Result<(), io::ErrorKind>) {
        self.note("connect_ended", &attempt.host, attempt.boot, attempt.id, result);
    }
    fn accepted(&self, end: &End) {
        self.note("accepted", &end.host, end.boot, end.connection, (end.side, end.port));
    }
    fn read(&self, end: &End, bytes: &[u8]) {
        self.note("read", &end.host, end.boot, end.connection, Bytes::copy_from_slice(bytes));
    }
    fn written(&self, end: &End, bytes: &[u8]) {
        self.note("written", &end.host, end.boot, end.connection, Bytes::copy_from_slice(bytes));
    }
    fn closed(&self, end: &End) {
        self.note("closed", &end.host, end.boot, end.connection, end.side);
    }
}

#[test]
fn the_tap_sees_a_connection_from_both_ends() {
    let tap = Rc::new(Recorder::default());
    let options = Options { tap: tap.clone(), ..options(7, &["client", "server"]) };
    simulate(options, |engine| async move {
        let (mut client, mut server) = pair(engine).await;
        client.write_all(b"hello").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0; 5]).await.unwrap(), 0);
        drop(server);
    });
    let expected = [
        "connecting client/1 #1 \"server:9000\"",
        "connect_ended client/1 #1 Ok(())",
        "accepted server/1 #1 (Server, 9000)",
        "written client/1 #1 b\"hello\"",
        "read server/1 #1 b\"hello\"",
        "closed client/1 #1 Client",
        "closed server/1 #1 Server",
    ];
    assert_eq!(tap.events(), expected);
}

#[test]
fn the_end_of_a_killed_process_is_not_reported() {
    let tap = Rc::new(Recorder::default());
    let options = Options { tap: tap.clone(), ..options(7, &["client", "server", "dark"]) };
    simulate(options, |engine| async move {
        engine.power_cut("dark");
        echo(engine, "server");
        engine.start("client", |network| async move {
            let _held = dial(&network, "server").await.unwrap();
            let _ = dial(&network, "dark").await; // hangs: no power there
        });
        tokio::time::sleep(SECOND).await;
        engine.power_cut("client");
        tokio::time::sleep(SECOND).await;
    });
    let client: Vec<_> = tap.events().into_iter().filter(|event| event.contains("client/")).collect();
    let expected = [
        "connecting client/1 #1 \"server:9000\"",
        "connect_ended client/1 #1 Ok(())",
        "connecting client/1 #2 \"dark:9000\"",
    ];
    assert_eq!(client, expected, "neither its stream nor its attempt ended");
}

#[test]
fn a_connect_given_up_leaves_nothing_behind() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        for n in 0..300 {
            let _ = timeout(Duration::from_millis(n % 12), dial(&client, "server")).await;
        }
        tokio::time::sleep(200 * SECOND).await;
        assert_eq!((sockets(engine, "client"), sockets(engine, "server")), (0, 0));
        assert_eq!(remains(), 0);
        engine.stop("server");
        echo(engine, "server"); // the port is free
        ping(&mut dial(&client, "server").await.unwrap()).await.unwrap();
    });
}

#[test]
fn a_connect_given_up_closes_no_socket_of_another_host() {
    storm(|engine| async move {
        echo(engine, "server");
        let (client, bystander) = (boot(engine, "client"), boot(engine, "bystander"));
        let mut stream = dial(&bystander, "server").await.unwrap(); // the first socket of its kernel, as the one below
        engine.partition("client", "server");
        let mut dialling = Box::pin(dial(&client, "server"));
        assert!(timeout(SECOND, &mut dialling).await.is_err());
        ping(&mut stream).await.unwrap(); // so that the bystander's kernel was the last in use
        drop(dialling);
        ping(&mut stream).await.unwrap();
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        for n in 0..200 {
            let mut stream = dial(&client, "server").await.unwrap();
            ping(&mut stream).await.unwrap();
            if n % 3 == 0 {
                engine.cut(&engine.connections("client", "server")[0]);
            }
            let refused = client.connect(&Address::new("bystander", PORT)).await;
            assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        }
        tokio::time::sleep(200 * SECOND).await;
        assert_eq!((sockets(engine, "client"), sockets(engine, "server")), (0, 0));
        assert_eq!(remains(), 0);
    });
}

#[test]
fn a_connection_that_both_ends_have_closed_is_forgotten_at_once() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        client.write_all(b"?").await.unwrap();
        server.read_u8().await.unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(remains(), 1);
        drop(server);
        tokio::time::sleep(SECOND).await;
        assert_eq!(remains(), 0);
    });
}

#[test]
fn a_full_backlog_makes_dialling_wait_not_fail() {
    storm(|engine| async move {
        let (client, server) = (boot(engine, "client"), boot(engine, "server"));
        let mut listener = server.listen(PORT).await.unwrap();
        let dial_one = || {
            let client = client.clone();
            tokio::task::spawn_local(async move { dial(&client, "server").await })
        };
        let dialling: Vec<_> = (0..1_030).map(|_| dial_one()).collect();
        tokio::time::sleep(SECOND).await;
        assert_eq!(dialling.iter().filter(|one| one.is_finished()).count(), 1_024);
        for _ in 0..1_030 {
            timeout(60 * SECOND, listener.accept()).await.expect("its SYN is sent again").unwrap();
        }
        for one in dialling {
            one.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_host_reaches_itself_and_small_reads_do_not_wedge_it() {
    storm(|engine| async move {
        let network = boot(engine, "server");
        let mut listener = network.listen(PORT).await.unwrap();
        let (dialled, accepted) = tokio::join!(dial(&network, "server"), listener.accept());
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        let writing = tokio::task::spawn_local(async move {
            dialled.write_all(&[7; 1_000_000]).await.unwrap();
            dialled
        });
        let mut piece = [0; 1_000];
        for n in 0..1_000 {
            if n % 100 == 0 {
                tokio::time::sleep(SECOND).await;
            }
            timeout(SECOND, accepted.read_exact(&mut piece)).await.expect("more bytes").unwrap();
            assert_eq!(piece, [7; 1_000]);
        }
        drop(writing.await.unwrap());
    });
}

#[test]
fn a_taken_port_is_refused_and_free_again_once_its_listener_is_dropped() {
    storm(|engine| async move {
        let network = boot(engine, "server");
        let listener = network.listen(PORT).await.unwrap();
        assert_eq!(network.listen(PORT).await.err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        network.listen(PORT).await.unwrap();
    });
}

#[test]
fn hyper_works_over_simulated_streams() {
    storm(|engine| async move {
        engine.start("server", |network| async move {
            let mut listener = network.listen(PORT).await.unwrap();
            while let Ok(stream) = listener.accept().await {
                let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(hyper::Response::new(Full::new(body)))
                });
                let server = hyper::server::conn::http1::Builder::new()
                    .auto_date_header(false) // it would be the real date
                    .serve_connection(TokioIo::new(stream), service);
                tokio::task::spawn_local(server);
            }
        });
        let client = boot(engine, "client");
        let stream = dial(&client, "server").await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        for size in [1, 100_000] {
            let request = hyper::Request::post("/").body(Full::new(Bytes::from(vec![b'x'; size]))).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.headers().get("date"), None);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), size);
        }
    });
}

#[test]
fn the_end_comes_after_all_bytes_that_were_written() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        let writing = tokio::task::spawn_local(async move {
            client.write_all(&[1; 100_000]).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        tokio::time::sleep(SECOND).await; // the window is closed
        let mut received = Vec::new();
        timeout(SECOND, server.read_to_end(&mut received)).await.unwrap().unwrap();
        assert_eq!(received.len(), 100_000);
        drop(writing.await.unwrap());
    });
}

#[test]
fn bytes_stay_in_order_when_the_latency_falls() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        let slow = LatencyRange { min_us: 50_000, max_us: 50_000 };
        engine.set_latency("client", "server", slow);
        client.write_all(b"first ").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        engine.reset_latency("client", "server");
        client.write_all(b"second").await.unwrap();
        let mut received = [0; 12];
        timeout(SECOND, server.read_exact(&mut received)).await.unwrap().unwrap();
        assert_eq!(&received, b"first second");
    });
}

#[test]
fn a_closed_port_resets_the_connections_it_has_not_accepted() {
    storm(|engine| async move {
        let (client, server) = (boot(engine, "client"), boot(engine, "server"));
        let listener = server.listen(PORT).await.unwrap();
        let mut stream = dial(&client, "server").await.unwrap();
        tokio::time::sleep(SECOND).await; // the handshake is over at the server too
        drop(listener);
        assert_eq!(read_error(&mut stream).await, io::ErrorKind::ConnectionReset);
        drop(stream);
        tokio::time::sleep(150 * SECOND).await;
        assert_eq!(remains(), 0);
    });
}
