//! Executes requests with the same transaction id once.
//!
//! A client that receives no response retries with the same transaction id. While the first request is in progress, the
//! retry waits for the same reply. Afterwards it gets the same reply for half an hour, if the request succeeded. Synapse
//! uses the transaction id alone as the key, so that a different request with the same id gets the first one's reply. Here
//! the key is the whole request, with a hash of its body.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{HttpRefusal, Reply};
use crate::limits::{LimitHit, Limits};
use crate::observer::Env;
use crate::tasks;

/// The outcome of a request.
pub type Outcome = Result<Reply, HttpRefusal>;

/// The requests in progress and the recent replies.
pub struct RequestCache {
    limits: Limits,
    env: Env,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    requests: BTreeMap<String, Request>,
    /// The requests that succeeded, in the order of their replies.
    kept: VecDeque<Kept>,
    /// The bytes of these requests and their replies.
    kept_bytes: usize,
}

/// A request that succeeded.
struct Kept {
    at: Instant,
    key: String,
    bytes: usize,
}

enum Request {
    InProgress(watch::Receiver<Option<Outcome>>),
    Answered(Reply),
}

impl RequestCache {
    /// Creates a cache that runs requests as tasks of `env`, and keeps replies within `limits`.
    pub fn new(limits: Limits, env: Env) -> Rc<Self> {
        Rc::new(RequestCache { limits, env, state: RefCell::default() })
    }

    /// Returns the outcome of the request with this key. Runs `execution` unless such a request is known. A request without
    /// a key always runs. Dropping the returned future does not stop the execution.
    pub async fn outcome(
        self: &Rc<Self>,
        key: Option<String>,
        execution: impl Future<Output = Outcome> + 'static,
    ) -> Outcome {
        let Some(key) = key else {
            return self.env.tasks.spawn(tasks::HTTP_REQUEST, execution).await.unwrap_or_else(|_| Err(ended()));
        };
        self.drop_old();
        let known = match self.state.borrow().requests.get(&key) {
            Some(Request::Answered(reply)) => return Ok(reply.clone()),
            Some(Request::InProgress(outcome)) => Some(outcome.clone()),
            None => None,
        };
        let mut outcome = known.unwrap_or_else(|| self.start(key, execution));
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("`wait_for` returns once there is an outcome"),
            Err(_) => Err(ended()),
        }
    }

    fn start(
        self: &Rc<Self>,
        key: String,
        execution: impl Future<Output = Outcome> + 'static,
    ) -> watch::Receiver<Option<Outcome>> {
        let (sender, outcome) = watch::channel(None);
        self.state.borrow_mut().requests.insert(key.clone(), Request::InProgress(outcome.clone()));
        let in_progress = InProgress { cache: Rc::clone(self), key };
        self.env.tasks.spawn(tasks::HTTP_REQUEST, async move {
            let outcome = execution.await;
            in_progress.ended(&outcome);
            sender.send_replace(Some(outcome));
        });
        outcome
    }

    fn drop_old(&self) {
        let State { requests, kept, kept_bytes } = &mut *self.state.borrow_mut();
        let Limits { answers_kept_max, answers_kept_bytes_max, answers_kept_ms, .. } = self.limits;
        let is_old = |answer: &Kept| answer.at.elapsed() >= Duration::from_millis(answers_kept_ms);
        loop {
            let hit = if kept.len() > answers_kept_max || *kept_bytes > answers_kept_bytes_max {
                LimitHit::AnswerEvicted
            } else if kept.front().is_some_and(is_old) {
                LimitHit::AnswerExpired
            } else {
                break;
            };
            self.env.observer.limit_hit(hit);
            let oldest = kept.pop_front().expect("the queue is not empty");
            requests.remove(&oldest.key);
            *kept_bytes -= oldest.bytes;
        }
    }
}

/// A request in progress. Dropping it removes the request unless it has succeeded.
struct InProgress {
    cache: Rc<RequestCache>,
    key: String,
}

impl InProgress {
    fn ended(&self, outcome: &Outcome) {
        let Ok(reply) = outcome else { return };
        let bytes = 2 * self.key.len() + bytes_of(&reply.body);
        let State { requests, kept, kept_bytes } = &mut *self.cache.state.borrow_mut();
        requests.insert(self.key.clone(), Request::Answered(reply.clone()));
        kept.push_back(Kept { at: Instant::now(), key: self.key.clone(), bytes });
        *kept_bytes += bytes;
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let requests = &mut self.cache.state.borrow_mut().requests;
        if matches!(requests.get(&self.key), Some(Request::InProgress(_))) {
            requests.remove(&self.key);
        }
    }
}

/// Returns about how many bytes of memory the object takes.
fn bytes_of(object: &Map<String, Value>) -> usize {
    object.iter().map(|(key, value)| size_of::<(String, Value)>() + key.len() + bytes_in(value)).sum()
}

/// Returns about how many bytes `value` takes besides its own size.
fn bytes_in(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| size_of::<Value>() + bytes_in(value)).sum(),
        Value::Object(object) => bytes_of(object),
    }
}

fn ended() -> HttpRefusal {
    HttpRefusal::try_again("the instance stopped before the request was complete")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::limits::{KEPT_MAX, KEPT_MS};
    use squall_env::network::TokioNetwork;
    use squall_env::{Noop, SeedTree, SystemClock, TaskSpawner};
    use squall_protocol::Token;

    fn run<F: Future>(test: impl FnOnce(Rc<RequestCache>) -> F) -> F::Output {
        run_with(Limits::default(), test)
    }

    fn run_with<F: Future>(limits: Limits, test: impl FnOnce(Rc<RequestCache>) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let env = Env {
            network: Rc::new(TokioNetwork),
            clock: Rc::new(SystemClock),
            seeds: SeedTree::from_seed(1),
            observer: Rc::new(Noop),
            tasks: TaskSpawner::new(Rc::new(Noop)),
        };
        tokio::task::LocalSet::new().block_on(&runtime, test(RequestCache::new(limits, env)))
    }

    /// Returns a reply with a number by which to recognise it.
    fn reply(number: i64) -> Reply {
        Reply::wrote(Map::new(), "events", Token(number))
    }

    /// A source of executions that take a second each. It counts them.
    #[derive(Clone, Default)]
    struct Executions(Rc<Cell<i64>>);

    impl Executions {
        fn next(&self, refuse: bool) -> impl Future<Output = Outcome> + 'static {
            let executions = self.0.clone();
            async move {
                executions.set(executions.get() + 1);
                let number = executions.get();
                tokio::time::sleep(Duration::from_secs(1)).await;
                if refuse { Err(HttpRefusal::bad_request(number)) } else { Ok(reply(number)) }
            }
        }
    }

    fn key(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn the_same_request_is_executed_once_and_answered_twice() {
        run(|cache| async move {
            let executions = Executions::default();
            let ask = async |name| cache.outcome(key(name), executions.next(false)).await.unwrap();
            let (one, other, same) = tokio::join!(ask("a"), ask("b"), ask("a"));
            assert_eq!((one, other, same), (reply(1), reply(2), reply(1)));
            assert_eq!(ask("a").await, reply(1));
        });
    }

    #[test]
    fn a_request_without_a_transaction_id_is_always_executed() {
        run(|cache| async move {
            let executions = Executions::default();
            for number in 1..=2 {
                assert_eq!(cache.outcome(None, executions.next(false)).await, Ok(reply(number)));
            }
        });
    }

    #[test]
    fn a_refusal_is_shared_but_not_kept() {
        run(|cache| async move {
            let executions = Executions::default();
            let ask = async || cache.outcome(key("a"), executions.next(true)).await.unwrap_err().error;
            let (one, same) = tokio::join!(ask(), ask());
            assert_eq!((one.as_str(), same.as_str()), ("1", "1"));
            assert_eq!(cache.outcome(key("a"), executions.next(false)).await, Ok(reply(2)));
        });
    }

    #[test]
    fn an_execution_goes_on_when_the_client_disconnects() {
        run(|cache| async move {
            let executions = Executions::default();
            let asked = cache.outcome(key("a"), executions.next(false));
            assert!(tokio::time::timeout(Duration::from_millis(1), asked).await.is_err());
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(cache.outcome(key("a"), executions.next(false)).await, Ok(reply(1)));
        });
    }

    #[test]
    fn as_many_replies_as_the_limit_are_kept() {
        run_with(Limits { answers_kept_max: 2, ..Limits::default() }, |cache| async move {
            let executions = Executions::default();
            let ask = async |name: &str| cache.outcome(key(name), executions.next(false)).await.unwrap();
            for (number, name) in (1..).zip(["a", "b", "c"]) {
                assert_eq!(ask(name).await, reply(number));
            }
            assert_eq!((ask("b").await, ask("c").await), (reply(2), reply(3)));
            assert_eq!(ask("a").await, reply(4));
        });
    }

    #[test]
    fn the_bytes_of_all_replies_are_limited() {
        let limits = Limits { answers_kept_bytes_max: 10_000, ..Limits::default() };
        run_with(limits, |cache| async move {
            let long = |text: &str| Map::from_iter([("ids".to_owned(), vec![text.repeat(100); 20].into())]);
            for number in 0..20 {
                let reply = Reply::read(long("x"));
                cache.outcome(key(&number.to_string()), async move { Ok(reply) }).await.unwrap();
            }
            let executions = Executions::default();
            assert_eq!(cache.outcome(key("19"), executions.next(false)).await, Ok(Reply::read(long("x"))));
            assert_eq!(cache.outcome(key("0"), executions.next(false)).await, Ok(reply(1)));
            let state = cache.state.borrow();
            assert_eq!(state.kept_bytes, state.kept.iter().map(|answer| answer.bytes).sum::<usize>());
            assert!((3..=5).contains(&state.kept.len()), "{}", state.kept.len());
        });
    }

    #[test]
    fn replies_are_dropped_after_half_an_hour_and_when_there_are_too_many() {
        run(|cache| async move {
            let executions = Executions::default();
            let ask = async |name: &str| cache.outcome(key(name), executions.next(false)).await.unwrap();
            assert_eq!(ask("a").await, reply(1));
            tokio::time::sleep(Duration::from_millis(KEPT_MS - 1_000)).await;
            assert_eq!(ask("a").await, reply(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(ask("a").await, reply(2));

            for number in 0..=KEPT_MAX {
                let reply = reply(number as i64);
                cache.outcome(key(&number.to_string()), async move { Ok(reply) }).await.unwrap();
            }
            assert_eq!(ask("a").await, reply(3));
            let State { requests, kept, .. } = &*cache.state.borrow();
            assert!(requests.len() == kept.len() && kept.len() <= KEPT_MAX + 1, "{}", kept.len());
        });
    }
}
