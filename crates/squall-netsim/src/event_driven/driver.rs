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
use crate::time::Time;

/// Drains the hosts, judges and delivers; never ends.
pub(super) struct Driver {
    /// When the simulation began.
    began: Instant,
    sleep: Pin<Box<Sleep>>,
    /// The time for which `sleep` is set.
    alarm: Option<Time>,
}

impl Driver {
    /// A driver for this thread's wire. Needs a runtime.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Driver {
            began: now - Time::now().since_start(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            alarm: None,
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let next = wire(|wire| {
            wire.agenda.looks(cx);
            wire.step(Time::now());
            wire.agenda.set_alarm()
        });
        if next.is_some() && next != self.alarm {
            self.alarm = next;
            let at = self.began + next.unwrap_or_default().since_start();
            self.sleep.as_mut().reset(at);
            if self.sleep.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}
