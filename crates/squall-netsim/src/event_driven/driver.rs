//! The task that moves packets.
//!
//! It sleeps until the next packet arrives, so that Tokio's paused clock jumps over quiet time. It is a task of its
//! own: polled together with another future in one task, the two would wake each other for ever and the clock would
//! stand still.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::wire::wire;

/// Drains the kernels, judges and delivers; never ends.
pub(super) struct Driver {
    sleep: Pin<Box<Sleep>>,
}

impl Driver {
    /// A driver for this thread's wire. Needs a runtime.
    pub(super) fn new() -> Self {
        Driver { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let next = wire(|wire| {
            if !wire.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
                wire.driver = Some(cx.waker().clone());
            }
            wire.step(Instant::now())
        });
        if let Some(at) = next {
            if self.sleep.deadline() != at || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(at);
            }
            if self.sleep.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}
