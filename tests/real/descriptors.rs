//! A process that may open few files.

use std::net::{Ipv4Addr, TcpStream};

use serde_json::json;
use squall::serve::DESCRIPTORS_MIN;
use squall::store::account_data::Datum;

use crate::program::Site;
use crate::run;

#[test]
fn idle_clients_take_no_descriptor_that_an_instance_needs() {
    run(async {
        let site = Site::new("descriptors", None);
        let mut master = site.start_with_open_files("master", DESCRIPTORS_MIN).await;
        let _writers = [site.start("writer1").await, site.start("writer2").await];
        let idle = |port| (0..100).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
        let metrics: Vec<TcpStream> = idle(master.metrics_port());
        assert_eq!(master.get("/health").await.0, 200);
        let replication: Vec<TcpStream> = idle(site.replication_port("master"));
        let datum =
            Datum { user_id: "@a:squall.test".into(), room_id: None, kind: "m.direct".into(), content: json!({}) };
        site.client().set_account_data(&"master".into(), &datum).await.unwrap();
        let http: Vec<TcpStream> = idle(site.http_port("master"));
        assert_eq!(master.get("/health").await.0, 200);
        drop((metrics, replication, http));
        let log = master.log();
        assert!(log.contains("too many connections") && !log.contains("Too many open files"), "{log}");
        assert_eq!(master.stop("TERM").await.code(), Some(0), "{}", master.log());
    });
}
