//! Requests that are dropped in the middle, as when a client goes away.
//!
//! A future that is dropped ends at its present await. Its work in other tasks goes on, its own state is gone, and its drop
//! handlers have to release everything it held (Synapse #19800: a request that was dropped between allocating an id and
//! registering it held the stream back until the process was restarted).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rand::RngExt;

use super::switch::{Rate, Switch};
use squall_env::SeedTree;

/// The largest number of awaits before a request is dropped. A request passes each await with a probability of two in three:
/// a short one is dropped often enough, and a long one late enough.
const AWAITS_MAX: u32 = 12;

/// The cancellations of requests to one host: its switch hits requests. They outlive the host's processes.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancellations {
    switch: Switch,
}

impl Cancellations {
    /// Returns the switch. A request counts as hit once it is dropped.
    pub(super) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Carries out `request`, or drops it in the middle, as draws from `seeds` decide.
    pub(super) fn carry_out<'a>(
        &self,
        seeds: &SeedTree,
        request: impl Future<Output = ()> + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let mut rng = seeds.child("cancelled").rng();
        let drawn = rng.random_range(0..1_000);
        let awaits = (1..AWAITS_MAX).find(|_| rng.random_ratio(1, 3)).unwrap_or(AWAITS_MAX);
        let cancelled_by = self.switch.hit_by(drawn).map(|rate| (rate, awaits));
        Cancelled { request: Some(Box::pin(request)), cancelled_by }
    }
}

/// A request that is dropped at its last allowed await, if it comes that far.
struct Cancelled<F> {
    request: Option<Pin<Box<F>>>,
    cancelled_by: Option<(Arc<Rate>, u32)>,
}

impl<F: Future<Output = ()>> Future for Cancelled<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Cancelled { request, cancelled_by } = &mut *self;
        let Some(running) = request else { return Poll::Ready(()) };
        if running.as_mut().poll(cx).is_ready() {
            *request = None;
            return Poll::Ready(());
        }
        if let Some((rate, awaits)) = cancelled_by {
            *awaits -= 1;
            if *awaits == 0 {
                *request = None;
                rate.count();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Runs a hundred requests of three awaits. Returns the number of those that reach their end, and of all awaits.
    fn done(cancellations: &Cancellations) -> (u32, u32) {
        let (ends, awaits) = (Cell::new(0), Cell::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for ordinal in 0..100 {
                let request = async {
                    for _ in 0..3 {
                        awaits.set(awaits.get() + 1);
                        tokio::task::yield_now().await;
                    }
                    ends.set(ends.get() + 1);
                };
                cancellations.carry_out(&SeedTree::from_seed(7).child(ordinal), request).await;
            }
        });
        (ends.get(), awaits.get())
    }

    #[test]
    fn a_request_is_dropped_at_any_await_while_the_fault_lasts() {
        let cancellations = Cancellations::default();
        assert_eq!(done(&cancellations), (100, 300));
        let fault = cancellations.switch().begin(1_000);
        let (ends, awaits) = done(&cancellations);
        assert_eq!(u64::from(100 - ends), fault.hits());
        assert!((20..40).contains(&ends) && (180..250).contains(&awaits), "{ends} ended, {awaits} awaits");
        drop(fault);
        assert_eq!(done(&cancellations), (100, 300));
    }

    #[test]
    fn a_request_that_never_waits_is_never_dropped() {
        let cancellations = Cancellations::default();
        let fault = cancellations.switch().begin(1_000);
        let has_run = Cell::new(false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(cancellations.carry_out(&SeedTree::from_seed(7), async { has_run.set(true) }));
        assert!(has_run.get());
        assert_eq!(fault.hits(), 0);
    }
}
