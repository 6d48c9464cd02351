//! Commands that concern every instance: relayed over TCP by the master, and sent once over a broker.

use super::*;

#[test]
fn the_master_relays_a_broadcast_to_all_clients_but_its_sender() {
    on_paused_clock(async {
        for (name, relayed) in [("master", vec!["REMOTE_SERVER_UP example.org"]), ("me", vec![])] {
            let one = instance(name);
            let sender = one.accept().await;
            let other = one.accept().await;
            let server = one.connect("a").await;
            one.receive(&sender, &["REMOTE_SERVER_UP example.org"]);
            assert_eq!(sent(&other).await, relayed, "by {name}");
            assert!(sent(&sender).await.is_empty() && sent(&server).await.is_empty());
            one.receive(&server, &["REMOTE_SERVER_UP example.org"]);
            for client in [&sender, &other] {
                assert_eq!(sent(client).await, relayed, "by {name}, to which its target sent it");
            }
            assert!(sent(&server).await.is_empty());
        }
    });
}

#[test]
fn that_a_remote_server_is_up_is_sent_to_the_master_which_sends_it_to_its_clients() {
    on_paused_clock(async {
        let up = ["REMOTE_SERVER_UP matrix.org"];
        let me = instance("me");
        let (to_master, to_other, client) = (me.connect("master").await, me.connect("a").await, me.accept().await);
        me.handler.remote_server_up("matrix.org");
        assert_eq!(sent(&to_master).await, up);
        assert!(sent(&to_other).await.is_empty() && sent(&client).await.is_empty());
        let master = instance("master");
        let (to_other, client) = (master.connect("a").await, master.accept().await);
        master.handler.remote_server_up("matrix.org");
        assert_eq!(sent(&client).await, up);
        assert!(sent(&to_other).await.is_empty());
    });
}

#[test]
fn a_broadcast_over_a_broker_is_sent_once_and_not_relayed() {
    on_paused_clock(async {
        let master = instance("master");
        let publisher = master.handler.publishing();
        let subscription = master.handler.subscribed();
        sent(&publisher).await;
        master.handler.remote_server_up("matrix.org");
        assert_eq!(sent(&publisher).await, ["REMOTE_SERVER_UP matrix.org"]);
        master.receive(&subscription, &["REMOTE_SERVER_UP matrix.org", "REMOTE_SERVER_UP example.org"]);
        assert_eq!(sent(&publisher).await, [""; 0]);
    });
}
