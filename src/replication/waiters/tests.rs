//! Who is woken when, and what is left of whoever stopped waiting.

use super::*;
use crate::replication::testing::{FakeStream, Journal, SECOND, link, on_paused_clock, row, settle};
use crate::replication::{Feed, Link};
use crate::streams::Promise;

/// An instance that follows the writers `a` and `b` of `events`, both from 10.
struct Follower {
    waiters: Rc<Waiters>,
    a: Rc<Feed>,
    b: Rc<Feed>,
    link: Rc<Link>,
    ended: Rc<RefCell<Vec<String>>>,
}

/// A follower on a connection where both writers have announced 10.
async fn follow(promise: Promise) -> Follower {
    let journal = Journal::default();
    let env = journal.env();
    let stream = FakeStream::new("events", promise, &["a", "b", "me"], &journal);
    let waiters = Waiters::new("me".into(), vec![stream.clone()]);
    let consumers = journal.consumers();
    consumers.register(waiters.clone());
    let link = link(1);
    let feed = |writer: &str| {
        let feed = Rc::new(Feed::new(stream.clone(), writer.into(), consumers.clone(), env.clone()));
        env.tasks.spawn("feed", Rc::clone(&feed).run());
        if promise == Promise::Log {
            feed.position(&link, Token(10), Token(10));
        }
        feed
    };
    let (a, b) = (feed("a"), feed("b"));
    settle().await;
    Follower { waiters, a, b, link, ended: Rc::default() }
}

impl Follower {
    /// Begins a wait in the background, and takes down its end under `name`.
    fn begin(&self, name: &'static str, writer: &'static str, position: i64) -> tokio::task::JoinHandle<()> {
        let (waiters, ended) = (Rc::clone(&self.waiters), Rc::clone(&self.ended));
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
fn what_has_been_taken_in_is_not_waited_for() {
    on_paused_clock(async {
        let follower = follow(Promise::Log).await;
        follower.begin("reached", "a", 10);
        follower.begin("our own", "me", 99);
        assert_eq!(follower.ended().await, ["reached", "our own"]);
    });
}

#[test]
fn several_may_wait_for_the_same_position() {
    on_paused_clock(async {
        let follower = follow(Promise::Log).await;
        for (name, position) in [("first", 12), ("later", 13), ("second", 12), ("sooner", 11)] {
            follower.begin(name, "a", position);
        }
        assert!(follower.ended().await.is_empty());
        follower.a.rows(&follower.link, Token(12), vec![row("x")]);
        assert_eq!(follower.ended().await, ["sooner", "first", "second"]);
        follower.a.rows(&follower.link, Token(13), vec![row("y")]);
        assert_eq!(follower.ended().await.last().unwrap(), "later");
        assert!(follower.is_idle());
    });
}

#[test]
fn another_writers_rows_wake_nobody() {
    on_paused_clock(async {
        let follower = follow(Promise::Log).await;
        follower.begin("for a", "a", 12);
        follower.begin("for b", "b", 12);
        settle().await;
        follower.b.rows(&follower.link, Token(15), vec![row("x")]);
        assert_eq!(follower.ended().await, ["for b"]);
        follower.a.rows(&follower.link, Token(12), vec![row("y")]);
        assert_eq!(follower.ended().await, ["for b", "for a"]);
    });
}

#[test]
fn a_position_without_rows_wakes() {
    on_paused_clock(async {
        let follower = follow(Promise::Log).await;
        follower.begin("waiter", "a", 12);
        settle().await;
        follower.a.position(&follower.link, Token(10), Token(14));
        assert_eq!(follower.ended().await, ["waiter"]);
    });
}

#[test]
fn whoever_waits_too_long_is_told_for_what() {
    on_paused_clock(async {
        let follower = follow(Promise::Log).await;
        follower.begin("waiter", "a", 12);
        follower.a.rows(&follower.link, Token(11), vec![row("x")]);
        tokio::time::sleep(29 * SECOND).await;
        assert!(follower.ended().await.is_empty());
        tokio::time::sleep(SECOND).await;
        assert_eq!(follower.ended().await, ["waiter: events of a did not reach 12 within 30s: it is at 11"]);
        assert!(follower.is_idle());
    });
}

#[test]
fn whoever_stops_waiting_leaves_nothing() {
    on_paused_clock(async {
        let follower = follow(Promise::Log).await;
        let (one, other) = (follower.begin("one", "a", 12), follower.begin("other", "a", 12));
        settle().await;
        one.abort();
        settle().await;
        assert!(!follower.is_idle());
        other.abort();
        settle().await;
        assert!(follower.is_idle());
        follower.a.rows(&follower.link, Token(12), vec![row("x")]);
        assert!(follower.ended().await.is_empty());
    });
}

#[test]
fn a_writer_that_starts_over_is_waited_for_no_longer() {
    on_paused_clock(async {
        let follower = follow(Promise::Memory).await;
        follower.begin("waiter", "a", Token::beginning_of(1).0 + 2);
        settle().await;
        let beginning = Token::beginning_of(2);
        follower.a.position(&follower.link, beginning, beginning);
        assert_eq!(follower.ended().await, ["waiter"]);
        assert!(follower.is_idle());
    });
}

#[test]
fn what_can_never_come_is_refused_at_once() {
    on_paused_clock(async {
        let follower = follow(Promise::Log).await;
        let wait = async |stream, writer: &str| {
            follower.waiters.wait_for_stream_position(stream, &writer.into(), Token(1)).await.unwrap_err().to_string()
        };
        assert_eq!(wait("nosuch", "a").await, "there is no stream nosuch to wait for");
        assert_eq!(wait("events", "c").await, "c does not write events, so there is nothing to wait for");
    });
}
