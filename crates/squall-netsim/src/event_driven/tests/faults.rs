//! Faults of machines and processes, as the other end sees them.

use super::*;

#[test]
fn a_stopped_process_says_goodbye_and_its_port_refuses() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        let mut stream = dial(&client, "server").await.unwrap();
        ping(&mut stream).await.unwrap();
        let stopped = Instant::now();
        assert!(engine.stop("server"));
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "end of file");
        assert!(stopped.elapsed() < Duration::from_millis(10));
        stream.write_all(b"?").await.expect("the kernel takes it before the reset comes");
        tokio::time::sleep(SECOND).await;
        assert_eq!(stream.write(b"?").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(dial(&client, "server").await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        assert!(!engine.stop("server"), "there is nothing left to stop");
    });
}

#[test]
fn a_process_stopped_with_unread_bytes_resets_its_peer() {
    storm(|engine| async move {
        engine.start("server", |network| async move {
            let mut listener = network.listen(PORT).await.unwrap();
            let _unread = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
        });
        let client = boot(engine, "client");
        let mut stream = dial(&client, "server").await.unwrap();
        stream.write_all(b"never read").await.unwrap();
        tokio::time::sleep(SECOND).await;
        engine.stop("server");
        assert_eq!(read_error(&mut stream).await, io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_power_cut_is_silence_and_the_writer_times_out() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        let mut stream = dial(&client, "server").await.unwrap();
        ping(&mut stream).await.unwrap();
        assert!(engine.power_cut("server"));
        assert!(timeout(10 * SECOND, stream.read_u8()).await.is_err(), "silence");
        let since = Instant::now();
        let (written, error) = write_on(&mut stream, 60 * SECOND).await;
        assert_eq!((written, error), (65_536, Some(io::ErrorKind::TimedOut)));
        assert!((15..20).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    });
}

#[test]
fn after_a_power_cut_and_restart_old_connections_are_reset_when_used() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        let mut stream = dial(&client, "server").await.unwrap();
        ping(&mut stream).await.unwrap();
        engine.power_cut("server");
        tokio::time::sleep(SECOND).await;
        echo(engine, "server");
        assert!(timeout(10 * SECOND, stream.read_u8()).await.is_err(), "the restart alone says nothing");
        stream.write_all(b"?").await.unwrap();
        assert_eq!(read_error(&mut stream).await, io::ErrorKind::ConnectionReset);
        ping(&mut dial(&client, "server").await.unwrap()).await.unwrap();
    });
}

#[test]
fn keep_alive_finds_a_dead_peer_within_two_minutes() {
    storm(|engine| async move {
        let (mut client, _server) = pair(engine).await;
        tokio::time::sleep(10 * SECOND).await;
        let since = Instant::now();
        engine.power_cut("server");
        assert_eq!(read_error(&mut client).await, io::ErrorKind::TimedOut);
        assert!((60..=120).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    });
}

#[test]
fn a_machine_without_power_repeats_nothing() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.partition("client", "server");
        client.write_all(b"lost").await.unwrap();
        tokio::time::sleep(SECOND).await;
        engine.power_cut("client");
        engine.heal_all();
        assert!(timeout(30 * SECOND, server.read_u8()).await.is_err());
    });
}

#[test]
fn connecting_to_a_host_without_power_times_out() {
    storm(|engine| async move {
        engine.power_cut("server");
        let client = boot(engine, "client");
        let since = Instant::now();
        assert_eq!(dial(&client, "server").await.err().unwrap().kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed(), squall_env::network::CONNECT_TIMEOUT);
        echo(engine, "server");
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(sockets(engine, "server"), 0, "no stale SYN is answered after the restart");
    });
}

#[test]
fn connecting_to_a_port_without_listener_is_refused_after_a_round_trip() {
    storm(|engine| async move {
        let client = boot(engine, "client");
        let since = Instant::now();
        assert_eq!(dial(&client, "server").await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        assert!((2..=12).contains(&since.elapsed().as_millis()));
        assert_eq!(dial(&client, "nowhere").await.err().unwrap().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_restarted_process_binds_its_port_though_old_sockets_linger() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        let mut held = dial(&client, "server").await.unwrap();
        ping(&mut held).await.unwrap();
        engine.stop("server");
        tokio::time::sleep(SECOND).await;
        assert_eq!(sockets(engine, "server"), 1, "an orphan in FIN_WAIT");
        echo(engine, "server");
        ping(&mut dial(&client, "server").await.unwrap()).await.unwrap();
        assert_eq!(engine.boot("server"), 2);
    });
}

#[test]
fn sockets_of_a_process_fail_once_its_boot_is_over() {
    storm(|engine| async move {
        let server = boot(engine, "server");
        let mut listener = server.listen(PORT).await.unwrap();
        let client = boot(engine, "client");
        let (dialled, accepted) = tokio::join!(dial(&client, "server"), listener.accept());
        let (mut stream, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        let waiting = tokio::task::spawn_local(async move { read_error(&mut stream).await });
        tokio::time::sleep(SECOND).await;
        engine.stop("client");
        assert_eq!(waiting.await.unwrap(), io::ErrorKind::ConnectionAborted);
        assert_eq!(read_error(&mut accepted).await, io::ErrorKind::ConnectionReset);
        boot(engine, "client");
        for error in [dial(&client, "server").await.err(), client.listen(PORT).await.err()] {
            assert_eq!(error.unwrap().kind(), io::ErrorKind::ConnectionAborted);
        }
    });
}

#[test]
fn a_frozen_process_stands_still_while_its_kernel_acknowledges() {
    storm(|engine| async move {
        let ticks = Rc::new(RefCell::new(Vec::new()));
        let ticked = ticks.clone();
        engine.start("server", |network| async move {
            let mut listener = network.listen(PORT).await.unwrap();
            let _unread = listener.accept().await.unwrap();
            loop {
                tokio::time::sleep(SECOND).await;
                ticked.borrow_mut().push(Instant::now());
            }
        });
        let client = boot(engine, "client");
        let mut stream = dial(&client, "server").await.unwrap();
        tokio::time::sleep(SECOND / 2).await; // it has accepted
        assert!(engine.freeze("server"));
        assert!(!engine.freeze("server") && engine.is_frozen("server") && engine.is_up("server"));
        stream.write_all(&[0; 60_000]).await.unwrap();
        let _second = dial(&client, "server").await.expect("its kernel accepts");
        tokio::time::sleep(60 * SECOND).await;
        assert!(ticks.borrow().is_empty());
        stream.write_all(b"still connected").await.unwrap();
        let thawed = Instant::now();
        assert!(engine.thaw("server"));
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(*ticks.borrow(), [thawed], "the overdue timer fired at the thaw");
        assert!(!engine.thaw("server"));
    });
}

#[test]
fn a_process_killed_while_frozen_restarts_thawed() {
    storm(|engine| async move {
        echo(engine, "server");
        engine.freeze("server");
        engine.power_cut("server");
        echo(engine, "server");
        let client = boot(engine, "client");
        ping(&mut dial(&client, "server").await.unwrap()).await.unwrap();
    });
}

#[test]
#[should_panic(expected = "a bug")]
fn a_panic_in_a_process_fails_the_run() {
    storm(|engine| async move {
        engine.start("server", |_| async { panic!("a bug") });
        tokio::time::sleep(SECOND).await;
    });
}

#[test]
fn a_process_that_ends_by_itself_stays_up() {
    storm(|engine| async move {
        engine.start("server", |_| async {});
        tokio::time::sleep(SECOND).await;
        assert!(engine.is_up("server"));
        assert!(!engine.is_up("client"));
    });
}
