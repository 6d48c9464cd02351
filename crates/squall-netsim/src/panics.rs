//! Panics of simulated tasks.
//!
//! tokio catches the panic of a spawned task and leaves it in the task's `JoinHandle`, which the spawner may have dropped.
//! In a simulation every panic is a bug, a library's own included, and has to end the run. So a panic hook notes the
//! message for the thread that panicked, and the simulation on that thread ends with the same message.
//!
//! tokio's `unhandled_panic` does the same, but exists only in builds with `--cfg tokio_unstable`.

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic;
use std::pin::pin;
use std::sync::Once;
use std::task::Waker;

thread_local! {
    /// The simulation on this thread, if there is one.
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Watched {
    /// The message of the first panic.
    message: Option<String>,
    /// Wakes the task that ends the simulation.
    waker: Option<Waker>,
}

/// Ends the simulation on this thread when any of its tasks panics. Dropped at the end of the simulation.
pub(super) struct PanicWatch {
    /// Keeps the watch on its thread.
    thread: PhantomData<*const ()>,
}

impl PanicWatch {
    /// Begins to watch this thread.
    pub(crate) fn begin() -> Self {
        install_hook();
        WATCHED.set(Some(Watched::default()));
        PanicWatch { thread: PhantomData }
    }

    /// Runs `future` to its end, or to the first panic of any task on this thread.
    ///
    /// # Panics
    /// With the message of that panic.
    pub(crate) async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            WATCHED.with_borrow_mut(|watched| {
                let waker = watched.as_mut().map(|watched| &mut watched.waker);
                waker.into_iter().for_each(|waker| *waker = Some(cx.waker().clone()));
            });
            self.check();
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Ends the simulation if a task has panicked.
    ///
    /// # Panics
    /// With the message of the first panic. The hook has reported that panic already, so nothing is printed again.
    pub(crate) fn check(&self) {
        let message = WATCHED.with_borrow_mut(|watched| watched.as_mut().and_then(|watched| watched.message.take()));
        if let Some(message) = message {
            panic::resume_unwind(Box::new(message));
        }
    }
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        WATCHED.set(None);
    }
}

/// Adds the note to the process's panic hook, once. The hook that was there still runs.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info.payload());
            previous(info);
        }));
    });
}

/// Notes a panic if this thread simulates, and wakes the task that ends the simulation.
fn note(payload: &(dyn Any + Send)) {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
    let waker = WATCHED.try_with(|watched| {
        let mut watched = watched.try_borrow_mut().ok()?;
        let watched = watched.as_mut()?;
        watched.message.get_or_insert_with(|| text.to_owned());
        watched.waker.take()
    });
    if let Ok(Some(waker)) = waker {
        waker.wake();
    }
}
