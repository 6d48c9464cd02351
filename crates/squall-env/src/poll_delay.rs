//! Delayed polls.
//!
//! A single-threaded reactor runs its tasks in the order in which they were woken, so it shows only one of the orders
//! that a busier machine, another runtime or a slower lock would show. Delaying a poll now and then, so that other tasks
//! overtake it, shows the rest. Only the time of a poll changes: a task is never polled without having been woken, and
//! no wake-up is lost.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::Sleep;

use super::SeedTree;
use super::task_kind::TaskKind;

/// The most rounds in which all other tasks go first, for a delay that takes no time.
const ROUNDS_MAX: u32 = 8;

/// The delays of the polls of a process's tasks.
#[derive(Debug, Clone)]
pub struct PollDelay {
    /// The seeds of the draws. Each task draws on its own, by its kind and ordinal.
    pub seeds: SeedTree,
    /// The number of delayed polls in a thousand; at most 1000.
    pub per_mille: u32,
    /// The longest delay. Half of the delays, or all if this is less than a millisecond, take no time: up to eight
    /// times, all tasks that are ready go first.
    pub longest: Duration,
}

impl PollDelay {
    /// Wraps `task`, the `ordinal`th of its kind.
    pub(super) fn delay<F: Future>(&self, kind: TaskKind, ordinal: u64, task: F) -> DelayedPolls<F> {
        DelayedPolls {
            task: Box::pin(task),
            rng: self.seeds.child(kind.label()).child(ordinal).rng(),
            per_mille: self.per_mille,
            longest_ms: self.longest.as_millis() as u64,
            waiting: None,
        }
    }
}

/// A task with delayed polls.
pub(super) struct DelayedPolls<F> {
    task: Pin<Box<F>>,
    rng: ChaCha8Rng,
    per_mille: u32,
    longest_ms: u64,
    waiting: Option<Waiting>,
}

/// The end of a delay.
enum Waiting {
    /// So many more rounds in which all other tasks go first.
    Rounds(u32),
    /// A point in time.
    Time(Pin<Box<Sleep>>),
}

impl<F> DelayedPolls<F> {
    fn draw(&mut self) -> Option<Waiting> {
        if !self.rng.random_ratio(self.per_mille.min(1_000), 1_000) {
            return None;
        }
        if self.longest_ms == 0 || self.rng.random_ratio(1, 2) {
            return Some(Waiting::Rounds(self.rng.random_range(1..=ROUNDS_MAX)));
        }
        let wait = Duration::from_millis(self.rng.random_range(1..=self.longest_ms));
        Some(Waiting::Time(Box::pin(tokio::time::sleep(wait))))
    }
}

impl<F: Future> Future for DelayedPolls<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.waiting.is_none() {
            this.waiting = this.draw();
        }
        match &mut this.waiting {
            None => {}
            Some(Waiting::Rounds(0)) => this.waiting = None,
            Some(Waiting::Rounds(left)) => {
                *left -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Waiting::Time(sleep)) => {
                ready!(sleep.as_mut().poll(cx));
                this.waiting = None;
            }
        }
        this.task.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::time::Instant;

    use super::*;

    const TURN: TaskKind = TaskKind::new("turn");

    fn delay(seed: u64, per_mille: u32, longest_ms: u64) -> PollDelay {
        PollDelay { seeds: SeedTree::from_seed(seed), per_mille, longest: Duration::from_millis(longest_ms) }
    }

    fn block_on<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test)
    }

    /// The order in which ten tasks, woken in the order of their numbers, take their turns.
    fn turns(poll_delay: &PollDelay) -> Vec<u64> {
        let turns = Rc::new(RefCell::new(Vec::new()));
        block_on(async {
            let task = |n| {
                let turns = Rc::clone(&turns);
                tokio::task::spawn_local(poll_delay.delay(TURN, n, async move { turns.borrow_mut().push(n) }))
            };
            let tasks: Vec<_> = (0..10).map(task).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        Rc::into_inner(turns).unwrap().into_inner()
    }

    #[test]
    fn tasks_overtake_each_other_as_the_seed_says_and_each_has_its_turn_once() {
        let in_order: Vec<u64> = (0..10).collect();
        for longest_ms in [0, 5] {
            let shuffled = turns(&delay(7, 500, longest_ms));
            assert_eq!(shuffled, turns(&delay(7, 500, longest_ms)));
            assert_ne!(shuffled, turns(&delay(8, 500, longest_ms)));
            assert_ne!(shuffled, in_order);
            let mut sorted = shuffled;
            sorted.sort();
            assert_eq!(sorted, in_order);
        }
        assert_eq!(turns(&delay(7, 0, 5)), in_order, "nothing is put off");
    }

    #[test]
    fn a_task_is_polled_only_when_it_was_woken_and_no_wake_up_is_lost() {
        block_on(async {
            let polls = Rc::new(RefCell::new(0));
            let counted = Rc::clone(&polls);
            let (send, mut receive) = tokio::sync::mpsc::unbounded_channel::<u32>();
            let consumer = async move {
                let mut received = Vec::new();
                std::future::poll_fn(|cx| {
                    *counted.borrow_mut() += 1;
                    while let Some(number) = ready!(receive.poll_recv(cx)) {
                        received.push(number);
                    }
                    Poll::Ready(())
                })
                .await;
                received
            };
            let consumer = tokio::task::spawn_local(delay(7, 1_000, 5).delay(TURN, 0, consumer));
            for number in 0..100 {
                send.send(number).unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await; // longer than any poll_delay
            }
            drop(send);
            assert_eq!(consumer.await.unwrap(), (0..100).collect::<Vec<_>>(), "in order");
            assert!(*polls.borrow() <= 102, "{} polls for 102 wake-ups at the most", polls.borrow());
        });
    }

    #[test]
    fn waking_a_task_that_is_put_off_does_not_bring_it_forward() {
        let mut waited = 0;
        for ordinal in 0..20 {
            block_on(async {
                let began = Instant::now();
                let task = || delay(7, 1_000, 50).delay(TURN, ordinal, async move { began.elapsed() });
                let undisturbed = tokio::task::spawn_local(task());
                let disturbed = task();
                let disturbed = tokio::task::spawn_local(async move {
                    let mut disturbed = std::pin::pin!(disturbed);
                    loop {
                        tokio::select! {
                            biased;
                            took = &mut disturbed => return took,
                            () = tokio::time::sleep(Duration::from_millis(1)) => {} // polls it again
                        }
                    }
                });
                let undisturbed = undisturbed.await.unwrap();
                // One that lets others go first has its turns a millisecond apart here.
                if undisturbed > Duration::ZERO {
                    assert_eq!(disturbed.await.unwrap(), undisturbed);
                    waited += 1;
                }
            });
        }
        assert!(waited >= 5, "{waited} of 20 waited for time");
    }
}
