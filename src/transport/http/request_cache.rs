//! One execution for all requests that are one.
//!
//! Whoever did not get an answer asks again with the same transaction id. While the first request is still being
//! handled the second one waits for the same answer; afterwards it is given the same answer for half an hour, if it was
//! a good one. Synapse keys this by the transaction id alone, so that another question under the same id is given the
//! first one's answer. Here the key is everything that was asked.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Refusal, Reply};
use crate::env::Env;

/// How long a good answer is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 60);
/// How many answers are kept at most. The oldest go first; what they did is still known in the database.
pub const KEPT_MAX: usize = 1_000;

/// What came of a request.
pub type Outcome = Result<Reply, Refusal>;

/// The requests under way, and the answers of late.
pub struct RequestCache {
    env: Env,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    requests: BTreeMap<String, Request>,
    /// The requests that were answered well, in the order in which they were.
    kept: VecDeque<(Instant, String)>,
}

enum Request {
    UnderWay(watch::Receiver<Option<Outcome>>),
    Answered(Reply),
}

impl RequestCache {
    /// A cache whose requests run as tasks of `env`.
    pub fn new(env: Env) -> Rc<Self> {
        Rc::new(RequestCache { env, state: RefCell::default() })
    }

    /// The outcome of the request called `key`: what `execution` says, unless it was asked before. Without a key it is
    /// a request of its own. Whoever stops waiting does not stop the execution.
    pub async fn outcome(
        self: &Rc<Self>,
        key: Option<String>,
        execution: impl Future<Output = Outcome> + 'static,
    ) -> Outcome {
        let Some(key) = key else {
            return self.env.tasks.spawn("http_request", execution).await.unwrap_or_else(|_| Err(ended()));
        };
        self.forget_old();
        let known = match self.state.borrow().requests.get(&key) {
            Some(Request::Answered(reply)) => return Ok(reply.clone()),
            Some(Request::UnderWay(outcome)) => Some(outcome.clone()),
            None => None,
        };
        let mut outcome = known.unwrap_or_else(|| self.begin(key, execution));
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("it was waited for"),
            Err(_) => Err(ended()),
        }
    }

    fn begin(
        self: &Rc<Self>,
        key: String,
        execution: impl Future<Output = Outcome> + 'static,
    ) -> watch::Receiver<Option<Outcome>> {
        let (tell, outcome) = watch::channel(None);
        self.state.borrow_mut().requests.insert(key.clone(), Request::UnderWay(outcome.clone()));
        let under_way = UnderWay { cache: Rc::clone(self), key };
        self.env.tasks.spawn("http_request", async move {
            let outcome = execution.await;
            under_way.ended(&outcome);
            tell.send_replace(Some(outcome));
        });
        outcome
    }

    fn forget_old(&self) {
        let State { requests, kept } = &mut *self.state.borrow_mut();
        let is_old = |at: &Instant| at.elapsed() >= KEPT_FOR;
        while kept.len() > KEPT_MAX || kept.front().is_some_and(|(at, _)| is_old(at)) {
            let oldest = kept.pop_front().expect("one was looked at");
            requests.remove(&oldest.1);
        }
    }
}

/// A request that is being executed. However that ends, it is not under way any more.
struct UnderWay {
    cache: Rc<RequestCache>,
    key: String,
}

impl UnderWay {
    fn ended(&self, outcome: &Outcome) {
        let Ok(reply) = outcome else { return };
        let State { requests, kept } = &mut *self.cache.state.borrow_mut();
        requests.insert(self.key.clone(), Request::Answered(reply.clone()));
        kept.push_back((Instant::now(), self.key.clone()));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let requests = &mut self.cache.state.borrow_mut().requests;
        if matches!(requests.get(&self.key), Some(Request::UnderWay(_))) {
            requests.remove(&self.key);
        }
    }
}

fn ended() -> Refusal {
    Refusal::try_again("the instance ended before the request did")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::Map;

    use super::*;
    use crate::env::network::TokioNetwork;
    use crate::env::{Chance, Scope, Silent, SystemClock};
    use crate::protocol::Token;

    fn run<F: Future>(test: impl FnOnce(Rc<RequestCache>) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let env = Env {
            network: Rc::new(TokioNetwork),
            clock: Rc::new(SystemClock),
            chance: Chance::from_seed(1),
            observer: Rc::new(Silent),
            tasks: Scope::new(Rc::new(Silent)),
        };
        tokio::task::LocalSet::new().block_on(&runtime, test(RequestCache::new(env)))
    }

    /// A reply that can be told from others.
    fn reply(number: i64) -> Reply {
        Reply::wrote(Map::new(), "events", Token(number))
    }

    /// Executions that take a second and are counted.
    #[derive(Clone, Default)]
    struct Executions(Rc<Cell<i64>>);

    impl Executions {
        fn next(&self, refuse: bool) -> impl Future<Output = Outcome> + 'static {
            let executions = self.0.clone();
            async move {
                executions.set(executions.get() + 1);
                let number = executions.get();
                tokio::time::sleep(Duration::from_secs(1)).await;
                if refuse { Err(Refusal::bad_request(number)) } else { Ok(reply(number)) }
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
    fn a_request_without_a_transaction_id_is_its_own() {
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
    fn whoever_asks_need_not_stay_for_the_answer() {
        run(|cache| async move {
            let executions = Executions::default();
            let asked = cache.outcome(key("a"), executions.next(false));
            assert!(tokio::time::timeout(Duration::from_millis(1), asked).await.is_err());
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(cache.outcome(key("a"), executions.next(false)).await, Ok(reply(1)));
        });
    }

    #[test]
    fn answers_are_forgotten_after_half_an_hour_and_when_there_are_too_many() {
        run(|cache| async move {
            let executions = Executions::default();
            let ask = async |name: &str| cache.outcome(key(name), executions.next(false)).await.unwrap();
            assert_eq!(ask("a").await, reply(1));
            tokio::time::sleep(KEPT_FOR - Duration::from_secs(1)).await;
            assert_eq!(ask("a").await, reply(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(ask("a").await, reply(2));

            for number in 0..=KEPT_MAX {
                let reply = reply(number as i64);
                cache.outcome(key(&number.to_string()), async move { Ok(reply) }).await.unwrap();
            }
            assert_eq!(ask("a").await, reply(3));
            let State { requests, kept } = &*cache.state.borrow();
            assert!(requests.len() == kept.len() && kept.len() <= KEPT_MAX + 1, "{}", kept.len());
        });
    }
}
