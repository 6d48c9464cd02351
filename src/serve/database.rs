//! Reports when the database cannot be written, and when it can again.

use std::fmt::Display;
use std::rc::Rc;

use tokio::sync::watch;

use crate::observer::Observer;
use crate::store::Unwritable;

/// Reports to `observer` each time that the database becomes unwritable or writable, until the database is closed.
pub(super) async fn watch(mut unwritable: watch::Receiver<Option<Unwritable>>, observer: Rc<dyn Observer>) {
    let mut was_writable = true;
    loop {
        let reason = *unwritable.borrow_and_update();
        if reason.is_none() != was_writable {
            was_writable = reason.is_none();
            observer.unwritable(reason.as_ref().map(|reason| reason as &dyn Display));
        }
        if unwritable.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;
    use crate::store::Obstacle;
    use squall_env::TaskObserver;

    #[derive(Default)]
    struct Reports(RefCell<Vec<Option<String>>>);

    impl TaskObserver for Reports {}

    impl Observer for Reports {
        fn unwritable(&self, reason: Option<&dyn Display>) {
            self.0.borrow_mut().push(reason.map(ToString::to_string));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_and_the_end_are_reported_once() {
        let (noting, unwritable) = watch::channel(None);
        let reports = Rc::new(Reports::default());
        let since = Instant::now();
        let note = async {
            let full = Some(Unwritable { obstacle: Obstacle::Full, since });
            let locked = Some(Unwritable { obstacle: Obstacle::Locked, since });
            for note in [full, locked, None, None, locked] {
                tokio::task::yield_now().await;
                noting.send_replace(note);
            }
            tokio::task::yield_now().await;
            drop(noting);
        };
        tokio::join!(watch(unwritable, reports.clone()), note);
        let reports = reports.0.take();
        let locked = "nothing could be written for 0 s: another process has locked the database";
        assert_eq!(reports.len(), 3, "{reports:?}");
        assert_eq!(reports[0].as_deref(), Some("nothing could be written for 0 s: the disk is full"));
        assert_eq!(reports[1..], [None, Some(locked.to_owned())]);
    }
}
