//! The moment at which each waiting caller is woken, and the end of waits that fail or are cancelled.

use super::*;
use crate::replication::testing::{FakeStream, Journal, SECOND, connection, on_paused_clock, row, settle};
use crate::replication::{Connection, StreamFollower};
use crate::tasks;
use squall_protocol::Delivery;

/// An instance that follows the writers `a` and `b` of `events`, both from 10.
struct Follower {
    waiters: Rc<Waiters>,
    a: Rc<StreamFollower>,
    b: Rc<StreamFollower>,
    connection: Rc<Connection>,
    ended: Rc<RefCell<Vec<String>>>,
}

/// Returns a follower on a connection where both writers have announced 10.
async fn follow(delivery: Delivery) -> Follower {
    let journal = Journal::default();
    let env = journal.env();
    let stream = FakeStream::new("events", delivery, &["a", "b", "me"], &journal);
    let waiters = Waiters::new("me".into(), vec![stream.clone()]);
    let consumers = journal.consumers();
    consumers.register(waiters.clone());
    let connection = connection(1);
    let follower = |writer: &str| {
        let follower = Rc::new(StreamFollower::new(stream.clone(), writer.into(), consumers.clone(), env.clone()));
        env.tasks.spawn(tasks::STREAM_FOLLOWER, Rc::clone(&follower).run());
        if delivery == Delivery::Log {
            follower.position(&connection, Token(10), Token(10));
        }
        follower
    };
    let a = follower("a");
    let b = follower("b");
    settle().await;
    Follower { waiters, a, b, connection, ended: Rc::default() }
}

impl Follower {
    /// Begins a wait in the background, and records its end under `name`.
    fn begin(&self, name: &'static str, writer: &'static str, position: i64) -> tokio::task::JoinHandle<()> {
        let waiters = Rc::clone(&self.waiters);
        let ended = Rc::clone(&self.ended);
        tokio::task::spawn_local(async move {
            let end = waiters.wait_for_stream_position("events", &writer.into(), Token(position)).await;
            ended.borrow_mut().push(match end {
                Ok(()) => name.to_owned(),
                Err(error) => format!("{name}: {error}"),
            });
        })
    }

    async fn ended(&self) -> Vec<String> {
        settle().await;
        self.ended.borrow().clone()
    }

    fn is_idle(&self) -> bool {
        self.waiters.waiting.borrow().is_empty()
    }
}

#[test]
fn a_wait_for_applied_rows_or_own_rows_completes_at_once() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        follower.begin("reached", "a", 10);
        follower.begin("our own", "me", 99);
        assert_eq!(follower.ended().await, ["reached", "our own"]);
    });
}

#[test]
fn several_may_wait_for_the_same_position() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        for (name, position) in [("first", 12), ("later", 13), ("second", 12), ("sooner", 11)] {
            follower.begin(name, "a", position);
        }
        assert!(follower.ended().await.is_empty());
        follower.a.rows(&follower.connection, Token(12), vec![row("x")], 0);
        assert_eq!(follower.ended().await, ["sooner", "first", "second"]);
        follower.a.rows(&follower.connection, Token(13), vec![row("y")], 0);
        assert_eq!(follower.ended().await.last().unwrap(), "later");
        assert!(follower.is_idle());
    });
}

#[test]
fn another_writers_rows_wake_no_caller() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        follower.begin("for a", "a", 12);
        follower.begin("for b", "b", 12);
        settle().await;
        follower.b.rows(&follower.connection, Token(15), vec![row("x")], 0);
        assert_eq!(follower.ended().await, ["for b"]);
        follower.a.rows(&follower.connection, Token(12), vec![row("y")], 0);
        assert_eq!(follower.ended().await, ["for b", "for a"]);
    });
}

#[test]
fn a_position_without_rows_wakes() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        follower.begin("waiter", "a", 12);
        settle().await;
        follower.a.position(&follower.connection, Token(10), Token(14));
        assert_eq!(follower.ended().await, ["waiter"]);
    });
}

#[test]
fn a_wait_that_times_out_says_which_position_was_missing() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        follower.begin("waiter", "a", 12);
        follower.a.rows(&follower.connection, Token(11), vec![row("x")], 0);
        tokio::time::sleep(29 * SECOND).await;
        assert!(follower.ended().await.is_empty());
        tokio::time::sleep(SECOND).await;
        assert_eq!(follower.ended().await, ["waiter: events of a did not reach 12 within 30s: it is at 11"]);
        assert!(follower.is_idle());
    });
}

#[test]
fn a_wait_that_times_out_while_the_writer_announces_less_says_that_a_write_is_outstanding() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        follower.begin("waiter", "a", 12);
        for _ in 0..5 {
            tokio::time::sleep(5 * SECOND).await;
            follower.a.position(&follower.connection, Token(10), Token(10));
        }
        tokio::time::sleep(6 * SECOND).await;
        let ended = follower.ended().await;
        assert!(ended[0].starts_with("waiter: events of a did not reach 12 within 30s: it is at 10, "), "{ended:?}");
        assert!(ended[0].contains("one of its writes must be outstanding"), "{ended:?}");
    });
}

#[test]
fn a_cancelled_wait_leaves_nothing_behind() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        let one = follower.begin("one", "a", 12);
        let other = follower.begin("other", "a", 12);
        settle().await;
        one.abort();
        settle().await;
        assert!(!follower.is_idle());
        other.abort();
        settle().await;
        assert!(follower.is_idle());
        follower.a.rows(&follower.connection, Token(12), vec![row("x")], 0);
        assert!(follower.ended().await.is_empty());
    });
}

#[test]
fn a_wait_for_a_writer_that_starts_over_completes() {
    on_paused_clock(async {
        let follower = follow(Delivery::Memory).await;
        follower.begin("waiter", "a", Token::beginning_of(1).0 + 2);
        settle().await;
        let beginning = Token::beginning_of(2);
        follower.a.position(&follower.connection, beginning, beginning);
        assert_eq!(follower.ended().await, ["waiter"]);
        assert!(follower.is_idle());
    });
}

#[test]
fn a_wait_for_an_unknown_stream_or_writer_fails_at_once() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log).await;
        let wait = async |stream, writer: &str| {
            follower.waiters.wait_for_stream_position(stream, &writer.into(), Token(1)).await.unwrap_err().to_string()
        };
        assert_eq!(wait("nosuch", "a").await, "there is no stream nosuch to wait for");
        assert_eq!(wait("events", "c").await, "c does not write events, so there is nothing to wait for");
    });
}
