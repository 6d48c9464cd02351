//! Faults of connections and links.

use super::*;

#[test]
fn a_cut_connection_is_reset_at_both_ends_and_others_live() {
    storm(|engine| async move {
        echo(engine, "bystander");
        let client = boot(engine, "client");
        let server = boot(engine, "server");
        let mut listener = server.listen(PORT).await.unwrap();
        let (dialled, accepted) = tokio::join!(dial(&client, "server"), listener.accept());
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        let mut other = dial(&client, "bystander").await.unwrap();

        let [connection] = &engine.connections("server", "client")[..] else { panic!("one connection") };
        assert_eq!((&*connection.client, &*connection.server, connection.port), ("client", "server", PORT));
        let since = Instant::now();
        assert!(engine.cut(connection));
        assert_eq!(read_error(&mut dialled).await, io::ErrorKind::ConnectionReset);
        assert_eq!(read_error(&mut accepted).await, io::ErrorKind::ConnectionReset);
        assert_eq!(since.elapsed(), Duration::ZERO);
        assert!(!engine.cut(connection), "it is not open any more");
        assert!(engine.connections("client", "server").is_empty());
        ping(&mut other).await.unwrap();
    });
}

#[test]
fn a_short_partition_delays_and_loses_nothing() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
        let expected = sent.clone();
        let since = Instant::now();
        let sending = tokio::task::spawn_local(async move {
            for chunk in sent.chunks(1_000) {
                client.write_all(chunk).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            client // held open
        });
        let receiving = tokio::task::spawn_local(async move {
            let mut received = vec![0; 300_000];
            server.read_exact(&mut received).await.unwrap();
            received
        });
        tokio::time::sleep(SECOND).await;
        engine.partition("client", "server");
        engine.partition("server", "client");
        tokio::time::sleep(10 * SECOND).await;
        assert!(!receiving.is_finished());
        assert!(engine.held("client", "server") > 0);
        engine.heal("client", "server");
        engine.heal("server", "client");
        assert!(receiving.await.unwrap() == expected, "complete and in order");
        assert!(since.elapsed() < 17 * SECOND, "{:?}", since.elapsed());
        drop(sending.await.unwrap());
    });
}

#[test]
fn a_long_partition_times_the_sender_out_and_leaves_the_other_end_half_open() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.partition("client", "server");
        engine.partition("server", "client");
        let since = Instant::now();
        client.write_all(b"lost").await.unwrap();
        assert_eq!(read_error(&mut client).await, io::ErrorKind::TimedOut);
        assert!((15..18).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        drop(client);
        assert!(timeout(30 * SECOND, server.read_u8()).await.is_err(), "half open");
        engine.heal_all();
        assert_eq!(read_error(&mut server).await, io::ErrorKind::TimedOut, "by keep-alive");
        assert!(since.elapsed() < 200 * SECOND, "{:?}", since.elapsed());
    });
}

#[test]
fn after_a_long_partition_the_other_end_is_reset_when_it_speaks() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.partition("client", "server");
        client.write_all(b"lost").await.unwrap();
        assert_eq!(read_error(&mut client).await, io::ErrorKind::TimedOut);
        engine.heal_all();
        server.write_all(b"?").await.unwrap();
        assert_eq!(read_error(&mut server).await, io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_one_way_partition_starves_the_sender_of_acknowledgements() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.partition("client", "server");
        server.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!', "this way is open");
        assert_eq!(read_error(&mut server).await, io::ErrorKind::TimedOut);
        assert_eq!(engine.held("server", "client"), 0);
        assert!(engine.held("client", "server") > 0);
    });
}

#[test]
fn each_end_times_out_by_its_own_unacknowledged_bytes() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.partition("client", "server");
        let since = Instant::now();
        server.write_all(b"acknowledged in vain").await.unwrap();
        client.read_exact(&mut [0; 20]).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        client.write_all(b"lost").await.unwrap();
        assert_eq!(read_error(&mut server).await, io::ErrorKind::TimedOut);
        assert!((15..18).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        assert_eq!(read_error(&mut client).await, io::ErrorKind::TimedOut);
        assert!((25..28).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    });
}

#[test]
fn an_idle_connection_outlives_a_partition() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        tokio::time::sleep(SECOND).await;
        engine.partition("client", "server");
        engine.partition("server", "client");
        tokio::time::sleep(1_000 * SECOND).await;
        assert_eq!(engine.held("client", "server") + engine.held("server", "client"), 0, "it held nothing");
        engine.heal_all();
        client.write_all(b"!").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'!');
    });
}

#[test]
fn a_partition_during_the_handshake_only_delays_it() {
    for (from, to) in [("client", "server"), ("server", "client")] {
        storm(|engine| async move {
            echo(engine, "server");
            let client = boot(engine, "client");
            engine.partition(from, to);
            let dialling = tokio::task::spawn_local(async move { dial(&client, "server").await });
            tokio::time::sleep(5 * SECOND).await;
            assert!(!dialling.is_finished() && engine.held(from, to) > 0);
            engine.heal(from, to);
            ping(&mut dialling.await.unwrap().unwrap()).await.unwrap();
        });
    }
}

#[test]
fn a_consumer_that_does_not_read_blocks_the_writer_and_small_reads_release_it() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        let (written, error) = write_on(&mut client, 30 * SECOND).await;
        assert_eq!((written, error), (131_072, None), "a full receive buffer and a full send buffer");
        let reading = tokio::task::spawn_local(async move {
            let mut piece = [0; 100];
            for _ in 0..3_000 {
                server.read_exact(&mut piece).await.unwrap();
            }
            server
        });
        timeout(10 * SECOND, client.write_all(&[0; 300_000 - 131_072])).await.expect("the window reopens").unwrap();
        timeout(10 * SECOND, reading).await.expect("all arrives").unwrap();
    });
}

#[test]
fn a_slow_reader_reads_at_its_own_pace() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.slow_reader("server", Some(SlowReader { bytes: 10_000, pause: SECOND }));
        let since = Instant::now();
        let writing = tokio::task::spawn_local(async move {
            client.write_all(&[0; 400_000]).await.unwrap();
            (client, since.elapsed())
        });
        server.read_exact(&mut vec![0; 400_000]).await.unwrap();
        let (_client, written_after) = writing.await.unwrap();
        assert!((25..=35).contains(&written_after.as_secs()), "{written_after:?}");
        assert!((39..=45).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    });
}

#[test]
fn bandwidth_spaces_packets_out() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.set_bandwidth("client", "server", Some(100_000));
        let since = Instant::now();
        let writing = tokio::task::spawn_local(async move {
            client.write_all(&[0; 1_000_000]).await.unwrap();
            client
        });
        server.read_exact(&mut vec![0; 1_000_000]).await.unwrap();
        drop(writing.await.unwrap());
        assert!((10.0..10.6).contains(&since.elapsed().as_secs_f64()), "{:?}", since.elapsed());
    });
}

#[test]
fn latency_can_be_set_for_one_direction_and_back() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        let slow = LatencyRange { min_us: 700_000, max_us: 700_000 };
        for (set, expected) in [(true, 700..=701), (false, 1..=6)] {
            match set {
                true => engine.set_latency("client", "server", slow),
                false => engine.reset_latency("client", "server"),
            }
            let since = Instant::now();
            client.write_all(b"!").await.unwrap();
            server.read_u8().await.unwrap();
            assert!(expected.contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
        }
    });
}

#[test]
fn a_half_open_connection_is_reset_at_one_end_and_silence_at_the_other() {
    for gone in ["client", "server"] {
        storm(|engine| async move {
            let (client, server) = pair(engine).await;
            let survivor_is_client = gone == "server";
            let (mut gone_end, mut survivor) = if survivor_is_client { (server, client) } else { (client, server) };
            tokio::time::sleep(SECOND).await;
            let [connection] = &engine.connections("client", "server")[..] else { panic!("one connection") };
            assert!(engine.half_open(connection, gone));
            assert_eq!(read_error(&mut gone_end).await, io::ErrorKind::ConnectionReset);
            assert!(!engine.half_open(connection, gone) && engine.connections("client", "server").is_empty());
            drop(gone_end);
            let (written, error) = write_on(&mut survivor, 300 * SECOND).await;
            assert_eq!((written, error), (65_536, None), "it is neither acknowledged nor refused");
            assert!(timeout(SECOND, survivor.read_u8()).await.is_err());
            let since = Instant::now();
            engine.answer(connection);
            assert_eq!(read_error(&mut survivor).await, io::ErrorKind::ConnectionReset);
            assert!(since.elapsed() <= RETRY_MAX + SECOND, "{:?}", since.elapsed());
        });
    }
}

#[test]
fn other_connections_are_well_while_one_is_half_open() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        let mut lost = dial(&client, "server").await.unwrap();
        let mut other = dial(&client, "server").await.unwrap();
        ping(&mut lost).await.unwrap();
        let connections = engine.connections("client", "server");
        assert!(engine.half_open(&connections[0], "server"));
        assert!(timeout(20 * SECOND, ping(&mut lost)).await.is_err());
        ping(&mut other).await.unwrap();
        ping(&mut dial(&client, "server").await.unwrap()).await.unwrap();
    });
}

#[test]
fn a_half_open_connection_leaves_nothing_behind() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        for n in 0..60 {
            let mut stream = dial(&client, "server").await.unwrap();
            ping(&mut stream).await.unwrap();
            let connection = engine.connections("client", "server").remove(0);
            assert!(engine.half_open(&connection, if n % 2 == 0 { "client" } else { "server" }));
            let _ = timeout(SECOND, ping(&mut stream)).await;
            if n % 3 == 0 {
                drop(stream);
                tokio::time::sleep(SECOND).await;
                engine.answer(&connection);
            } else {
                engine.answer(&connection);
                tokio::time::sleep(SECOND).await;
            }
        }
        // What the server has not written to is found by keep-alive.
        tokio::time::sleep(400 * SECOND).await;
        assert_eq!((sockets(engine, "client"), sockets(engine, "server")), (0, 0));
        assert_eq!(remains(), 0);
    });
}

#[test]
fn a_stalled_connection_delivers_late_what_it_carried_even_if_it_has_ended() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        tokio::time::sleep(SECOND).await;
        let connection = engine.connections("client", "server").remove(0);
        assert!(engine.stall(&connection, "client"));
        client.write_all(b"late").await.unwrap();
        assert!(timeout(SECOND, server.read_u8()).await.is_err());
        assert!(engine.half_open(&connection, "client"));
        assert_eq!(read_error(&mut client).await, io::ErrorKind::ConnectionReset);
        assert!(!engine.stall(&connection, "client"), "it is not open any more");
        assert!(timeout(20 * SECOND, server.read_u8()).await.is_err());
        let since = Instant::now();
        assert!(engine.release(&connection) > 0);
        let mut late = [0; 4];
        server.read_exact(&mut late).await.unwrap();
        assert_eq!((&late, since.elapsed() < SECOND), (b"late", true));
        assert_eq!(engine.release(&connection), 0, "nothing waits any more");
    });
}

#[test]
fn a_stall_is_of_one_connection_and_one_direction() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        let mut stalled = dial(&client, "server").await.unwrap();
        let mut other = dial(&client, "server").await.unwrap();
        ping(&mut stalled).await.unwrap();
        let connection = engine.connections("client", "server").remove(0);
        assert!(engine.stall(&connection, "server"));
        stalled.write_all(b"!").await.unwrap();
        assert!(timeout(20 * SECOND, stalled.read_u8()).await.is_err());
        ping(&mut other).await.unwrap();
        engine.release(&connection);
        stalled.read_u8().await.unwrap();
        ping(&mut stalled).await.unwrap();
    });
}

#[test]
fn packets_that_wait_for_a_limit_arrive_at_once_when_it_is_lifted() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        engine.set_bandwidth("client", "server", Some(100));
        client.write_all(&[0; 50_000]).await.unwrap();
        tokio::time::sleep(60 * SECOND).await;
        assert!(timeout(SECOND, server.read_exact(&mut [0; 10_000])).await.is_err(), "it drips");
        let since = Instant::now();
        engine.set_bandwidth("client", "server", None);
        // Of the 10 000 none can have come out of order, so at least 40 000 are left.
        timeout(SECOND, server.read_exact(&mut [0; 40_000])).await.expect("it need not drip on").unwrap();
        while timeout(SECOND / 10, server.read(&mut [0; 10_000])).await.is_ok() {}
        engine.set_bandwidth("client", "server", Some(1_000_000));
        client.write_all(b"!").await.unwrap();
        timeout(SECOND, server.read_exact(&mut [0; 1])).await.expect("an earlier queue is forgotten").unwrap();
        assert!(since.elapsed() < 2 * SECOND, "{:?}", since.elapsed());
    });
}

#[test]
fn a_lost_syn_is_sent_again_after_a_second() {
    storm(|engine| async move {
        echo(engine, "server");
        let client = boot(engine, "client");
        engine.partition("client", "server");
        let since = Instant::now();
        let heal = async {
            tokio::time::sleep(SECOND / 2).await;
            engine.heal("client", "server");
        };
        let (dialled, ()) = tokio::join!(dial(&client, "server"), heal);
        dialled.unwrap();
        assert!((1_000..1_020).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    });
}

#[test]
fn what_got_through_ends_the_back_off_and_a_packet_counts_once_as_held() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        let mut delays = Vec::new();
        for held_for in [10 * SECOND, SECOND / 10] {
            engine.partition("client", "server");
            let since = Instant::now();
            client.write_all(b"?").await.unwrap();
            tokio::time::sleep(held_for).await;
            engine.heal("client", "server");
            server.read_u8().await.unwrap();
            delays.push(since.elapsed() - held_for);
            tokio::time::sleep(SECOND).await;
        }
        assert!(delays[0] < 2 * SECOND && delays[1] < SECOND / 5, "{delays:?}");
        assert_eq!(engine.held("client", "server"), 2);
    });
}

#[test]
fn acknowledgements_that_are_stalled_leave_the_send_buffer_full() {
    storm(|engine| async move {
        let (mut client, mut server) = pair(engine).await;
        let [connection] = &engine.connections("client", "server")[..] else { panic!("one connection") };
        assert!(engine.stall(connection, "server"));
        let reading = tokio::task::spawn_local(async move { server.read_exact(&mut [0; 100_000]).await.map(drop) });
        assert_eq!(write_on(&mut client, SECOND).await, (65_536, None));
        assert!(engine.release(connection) > 0);
        client.write_all(&[0; 100_000 - 65_536]).await.unwrap();
        reading.await.unwrap().unwrap();
    });
}
