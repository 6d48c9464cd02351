//! What the recorded writers had written before they told of it: the rows in the database, where they have one, and in
//! `writer1`'s memory.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rusqlite::{Connection, Transaction};
use serde_json::Value;
use squall::env::LocalBoxFuture;
use squall::protocol::{InstanceName, StreamName, Token};
use squall::store::to_device::Message;
use squall::store::{
    Backend, Database, DatabaseError, Job, NewEvent, StateDelta, account_data, cache_invalidation, events, presence,
    receipts, schema, to_device,
};
use squall::streams::{EventsRow, RemoteUpdates, Row, UpdateError, Updates};

/// Everything that was written so far.
#[derive(Clone)]
pub struct Written {
    connection: Rc<RefCell<Connection>>,
    /// Which tokens of the database are in it: what is told again was written once.
    tokens: Rc<RefCell<BTreeSet<(&'static str, Token)>>>,
    typing: Rc<RefCell<Vec<(Token, Row)>>>,
    asked: Rc<RefCell<BTreeSet<&'static str>>>,
}

impl Written {
    pub fn nothing() -> Self {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection).unwrap();
        Written {
            connection: Rc::new(RefCell::new(connection)),
            tokens: Rc::default(),
            typing: Rc::default(),
            asked: Rc::default(),
        }
    }

    pub fn database(&self) -> Database {
        Database::new(Rc::new(self.clone()))
    }

    /// The names of the transactions that were asked for.
    pub fn asked(&self) -> BTreeSet<&'static str> {
        self.asked.borrow().clone()
    }

    /// The writer of `typing` was started again, or stands where it stood.
    pub fn typing_is_at(&self, position: Token) {
        self.typing.borrow_mut().retain(|(token, _)| *token <= position);
    }

    /// `writer` has written all rows of one token.
    pub fn write(&self, writer: &InstanceName, token: Token, rows: &[Row]) {
        let stream = rows[0].stream();
        if let Row::Typing(_) = rows[0] {
            return self.typing.borrow_mut().extend(rows.iter().map(|row| (token, row.clone())));
        }
        if !self.tokens.borrow_mut().insert((stream, token)) {
            return;
        }
        let mut connection = self.connection.borrow_mut();
        let tx = connection.transaction().unwrap();
        for row in rows {
            insert(&tx, writer, token, row).expect("what Synapse could write can be written");
        }
        tx.commit().unwrap();
    }
}

fn insert(tx: &Transaction<'_>, writer: &InstanceName, token: Token, row: &Row) -> rusqlite::Result<()> {
    match row.clone() {
        Row::Events(EventsRow::Event(row)) => {
            if events::token_of(tx, &row.event_id)?.is_some() {
                let changed = events::mark_ex_outlier(tx, writer, token, &row.event_id)?;
                assert_eq!(changed, Some(row), "an event comes again when it stops being an outlier");
                return Ok(());
            }
            let event = NewEvent {
                event_id: row.event_id,
                room_id: row.room_id,
                kind: row.kind,
                state_key: row.state_key,
                redacts: row.redacts,
                relates_to: row.relates_to,
                membership: row.membership,
                rejected: row.rejected,
                outlier: row.outlier,
            };
            events::persist(tx, writer, &[(token, event)], &[])
        }
        Row::Events(EventsRow::State(row)) => {
            let delta =
                StateDelta { room_id: row.room_id, kind: row.kind, state_key: row.state_key, event_id: row.event_id };
            events::persist(tx, writer, &[], &[(token, delta)])
        }
        Row::Events(EventsRow::StateAll(row)) => panic!("the recording has no such row: {row:?}"),
        Row::Caches(row) => cache_invalidation::invalidate(tx, writer, [(token, row)]),
        Row::Receipts(row) => receipts::insert(tx, writer, token, &row).map(drop),
        Row::Presence(row) => presence::set(tx, writer, token, &row),
        Row::AccountData(row) => {
            let content = Value::from(token.0);
            let datum = account_data::Datum { user_id: row.user_id, room_id: row.room_id, kind: row.kind, content };
            account_data::set(tx, writer, token, &datum).map(drop)
        }
        Row::ToDevice(row) => {
            let message = Message {
                user_id: row.entity,
                device_id: "DEVICE".into(),
                message_id: token.to_string(),
                content: Value::Null,
            };
            to_device::add(tx, writer, token, &[message])
        }
        Row::Typing(row) => panic!("not in the database: {row:?}"),
    }
}

impl Backend for Written {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        self.asked.borrow_mut().insert(job.name);
        Box::pin(std::future::ready(job.execute(&mut self.connection.borrow_mut())))
    }
}

/// `writer1`, asked by HTTP.
impl RemoteUpdates for Written {
    fn updates(
        &self,
        _writer: &InstanceName,
        stream: &StreamName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        assert_eq!(stream.as_str(), "typing");
        let rows = self.typing.borrow().iter().filter(|(token, _)| from < *token && *token <= upto).cloned().collect();
        Box::pin(std::future::ready(Ok(Updates { rows, upto, limited: false })))
    }
}
