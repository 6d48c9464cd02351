//! Requests that are dropped in the middle, as when a client goes away.
//!
//! Dropping a future ends it at whichever await it stands. What it has begun elsewhere goes on; what it alone held is
//! gone, and nothing it promised to undo may stay undone (Synapse #19800: a request dropped between allocating an id and
//! registering it held the stream back until the process was restarted).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rand::RngExt;

use crate::env::Chance;

/// The most awaits that a request may come to before it is dropped. Each is twice as likely to be passed as not: a short
/// request is dropped often enough, and a long one late enough.
const AWAITS_MAX: u32 = 12;

/// Which requests of one host are dropped. It outlives the host's processes.
#[derive(Default)]
pub struct Cancellations {
    active: RefCell<Vec<Rc<Active>>>,
}

struct Active {
    per_mille: u32,
    cancelled: Cell<u64>,
}

impl Cancellations {
    /// From now on `per_mille` of a thousand requests are dropped, until the guard is.
    pub fn begin(self: &Rc<Self>, per_mille: u32) -> CancellationFault {
        let active = Rc::new(Active { per_mille, cancelled: Cell::new(0) });
        self.active.borrow_mut().push(Rc::clone(&active));
        CancellationFault { cancellations: Rc::clone(self), active }
    }

    /// Carries out `request`, or drops it on the way, as draws from `chance` will have it.
    pub fn carry_out<'a>(
        &self,
        chance: &Chance,
        request: impl Future<Output = ()> + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let mut rng = chance.of("cancelled").rng();
        let drawn = rng.random_range(0..1_000);
        let awaits = (1..AWAITS_MAX).find(|_| rng.random_ratio(1, 3)).unwrap_or(AWAITS_MAX);
        let active = self.active.borrow().iter().find(|active| drawn < active.per_mille).cloned();
        let cancelled_by = active.map(|active| (active, awaits));
        Cancelled { request: Some(Box::pin(request)), cancelled_by }
    }
}

/// Requests are dropped until this is.
pub struct CancellationFault {
    cancellations: Rc<Cancellations>,
    active: Rc<Active>,
}

impl CancellationFault {
    /// How many requests were dropped before they were done: whether the fault took effect.
    pub fn cancelled(&self) -> u64 {
        self.active.cancelled.get()
    }
}

impl Drop for CancellationFault {
    fn drop(&mut self) {
        self.cancellations.active.borrow_mut().retain(|active| !Rc::ptr_eq(active, &self.active));
    }
}

/// A request that is dropped at one of its awaits, if it comes to so many.
struct Cancelled<F> {
    request: Option<Pin<Box<F>>>,
    cancelled_by: Option<(Rc<Active>, u32)>,
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
        if let Some((fault, awaits)) = cancelled_by {
            *awaits -= 1;
            if *awaits == 0 {
                *request = None;
                fault.cancelled.set(fault.cancelled.get() + 1);
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred requests of three awaits get to their end, and how many awaits all come to.
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
                cancellations.carry_out(&Chance::from_seed(7).of(ordinal), request).await;
            }
        });
        (ends.get(), awaits.get())
    }

    #[test]
    fn a_request_is_dropped_at_any_await_while_the_fault_lasts() {
        let cancellations = Rc::new(Cancellations::default());
        assert_eq!(done(&cancellations), (100, 300));
        let fault = cancellations.begin(1_000);
        let (ends, awaits) = done(&cancellations);
        assert_eq!(u64::from(100 - ends), fault.cancelled());
        assert!((20..40).contains(&ends) && (180..250).contains(&awaits), "{ends} ended, {awaits} awaits");
        drop(fault);
        assert_eq!(done(&cancellations), (100, 300));
    }

    #[test]
    fn a_request_that_never_waits_is_never_dropped() {
        let cancellations = Rc::new(Cancellations::default());
        let fault = cancellations.begin(1_000);
        let has_run = Cell::new(false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(cancellations.carry_out(&Chance::from_seed(7), async { has_run.set(true) }));
        assert!(has_run.get());
        assert_eq!(fault.cancelled(), 0);
    }
}
