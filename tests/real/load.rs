//! Clients that write to a deployment, and know what was acknowledged.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use squall::store::account_data::Datum;
use squall::transport::http::HttpClient;
use squall::transport::http::endpoints::send_events::SentEvent;
use squall_protocol::Token;
use tokio::task::JoinHandle;

use crate::program::Site;

const USER: &str = "@user:squall.test";

/// Clients of the deployment that send write requests until the load is ended.
pub(crate) struct Load {
    is_over: Rc<Cell<bool>>,
    clients: Vec<JoinHandle<Written>>,
}

/// The writes of some clients.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The acknowledged events.
    pub event_ids: BTreeSet<String>,
    /// The types of the acknowledged account data, each written once.
    pub data: BTreeSet<String>,
    /// The errors of requests that failed for good. It is not known if they took effect.
    pub failures: Vec<String>,
}

impl Load {
    /// Begins to send some hundred events a second to each writer of events, and account data to the master.
    pub(crate) fn begin(site: &Site) -> Load {
        let is_over = Rc::new(Cell::new(false));
        let client = site.client();
        let events = ["writer1", "writer2"].map(|writer| {
            let room_id = site.room_of(writer);
            tokio::task::spawn_local(send_events(client.clone(), writer, room_id, Rc::clone(&is_over)))
        });
        let data = tokio::task::spawn_local(set_account_data(client, Rc::clone(&is_over)));
        Load { is_over, clients: events.into_iter().chain([data]).collect() }
    }

    /// Sends no more requests. Waits for the open ones, and returns what was written.
    pub(crate) async fn end(self) -> Written {
        self.is_over.set(true);
        let mut all = Written::default();
        for client in self.clients {
            let Written { mut event_ids, mut data, mut failures } = client.await.unwrap();
            all.event_ids.append(&mut event_ids);
            all.data.append(&mut data);
            all.failures.append(&mut failures);
        }
        all
    }
}

async fn send_events(client: HttpClient, writer: &str, room_id: String, is_over: Rc<Cell<bool>>) -> Written {
    let mut written = Written::default();
    for round in 0.. {
        if is_over.get() {
            break;
        }
        let ids: Vec<String> = (0..5).map(|number| format!("${writer}-{round}-{number}:squall.test")).collect();
        let events: Vec<SentEvent> = ids.iter().map(|id| event(id, &room_id)).collect();
        match client.send_events(&writer.into(), &events).await {
            Ok(_) => written.event_ids.extend(ids),
            Err(error) => written.failures.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    written
}

pub(crate) fn event(event_id: &str, room_id: &str) -> SentEvent {
    let event =
        json!({"type": "m.room.message", "event_id": event_id, "room_id": room_id, "sender": USER, "content": {}});
    let Value::Object(event) = event else { unreachable!("it is an object") };
    SentEvent::new("1", event)
}

async fn set_account_data(client: HttpClient, is_over: Rc<Cell<bool>>) -> Written {
    let mut written = Written::default();
    for number in 0.. {
        if is_over.get() {
            break;
        }
        let kind = format!("m.{number}");
        let datum = Datum { user_id: USER.into(), room_id: None, kind: kind.clone(), content: json!({}) };
        match client.set_account_data(&"master".into(), &datum).await {
            Ok(token) => {
                assert!(token > Token(0));
                written.data.insert(kind);
            }
            Err(error) => written.failures.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    written
}
