//! The health check of a process.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::watch;

use crate::instance::Instance;
use crate::metrics::Health;
use crate::replication::UnknownWriters;
use crate::store::Unwritable;
use squall_protocol::Role;

/// The state of the process, as its health check sees it.
#[derive(Default)]
pub(super) struct State {
    phase: RefCell<Phase>,
    /// The reason why the database cannot be written; `None` until it is opened.
    unwritable: RefCell<Option<watch::Receiver<Option<Unwritable>>>>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Starting,
    Running(Rc<Instance>),
    Stopping,
}

impl State {
    /// Notes that the database is open. `unwritable` has the reason why it cannot be written.
    pub(super) fn opened(&self, unwritable: watch::Receiver<Option<Unwritable>>) {
        *self.unwritable.borrow_mut() = Some(unwritable);
    }

    /// Notes that the instance runs.
    pub(super) fn started(&self, instance: &Rc<Instance>) {
        *self.phase.borrow_mut() = Phase::Running(Rc::clone(instance));
    }

    /// Notes that the instance stops.
    pub(super) fn stopping(&self) {
        *self.phase.borrow_mut() = Phase::Stopping;
    }

    /// Checks that the instance serves and can write, and that it follows every writer of which it hears.
    pub(super) fn health(&self) -> Health {
        let unwritable = self.unwritable.borrow().as_ref().and_then(|unwritable| *unwritable.borrow());
        match (&*self.phase.borrow(), unwritable) {
            (Phase::Stopping, _) => Health::Bad("stopping".to_owned()),
            (Phase::Starting, Some(unwritable)) => Health::Bad(format!("starting: {unwritable}")),
            (Phase::Starting, None) => Health::Bad("starting".to_owned()),
            (Phase::Running(_), Some(unwritable)) => Health::Bad(unwritable.to_string()),
            (Phase::Running(instance), None) => of_instance(instance),
        }
    }
}

fn of_instance(instance: &Instance) -> Health {
    if let Some(refusal) = instance.refusal_to_write() {
        return Health::Bad(refusal);
    }
    match is_connected(instance) {
        Ok(()) => of_writers(instance.handler().unknown_writers()),
        Err(reason) => Health::Bad(reason),
    }
}

/// Returns the health of an instance that has heard of these writers. It misses their rows: now, or until it was started
/// again.
fn of_writers(unknown: &UnknownWriters) -> Health {
    if unknown.is_empty() {
        return Health::Good;
    }
    let what = format!(
        "ignores {unknown}, which the configuration does not name among the writers: restart with the configuration that \
         does"
    );
    if unknown.are_heard() { Health::Bad(what) } else { Health::Degraded(what) }
}

/// Checks, with a broker, that the instance receives its own commands through the broker.
fn is_connected(instance: &Instance) -> Result<(), String> {
    let Some(broker) = &instance.config().redis else { return Ok(()) };
    let connections = instance.handler().connections();
    let connection = |role| connections.iter().find(|connection| connection.role() == role);
    if connection(Role::Publisher).is_none() {
        return Err(format!("not connected to publish at the broker at {broker}"));
    }
    match connection(Role::Subscriber) {
        None => Err(format!("not subscribed at the broker at {broker}")),
        Some(subscription) if !subscription.is_working() => {
            Err(format!("subscribed at the broker at {broker}, but its own commands have not come back yet"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::*;
    use crate::replication::unknown_writers::HEARD_WITHIN;
    use crate::store::Obstacle;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_cannot_write_says_why_and_for_how_long() {
        let state = State::default();
        assert_eq!(state.health(), Health::Bad("starting".to_owned()));
        let (noting, unwritable) = watch::channel(None);
        state.opened(unwritable);
        noting.send_replace(Some(Unwritable { obstacle: Obstacle::Locked, since: Instant::now() }));
        advance(Duration::from_secs(12)).await;
        let reason = "starting: nothing could be written for 12 s: another process has locked the database";
        assert_eq!(state.health(), Health::Bad(reason.to_owned()));
        noting.send_replace(None);
        assert_eq!(state.health(), Health::Bad("starting".to_owned()));
        state.stopping();
        assert_eq!(state.health(), Health::Bad("stopping".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn rows_of_an_unknown_writer_are_bad_while_they_arrive_and_not_forgotten_then() {
        let writers = UnknownWriters::default();
        assert_eq!(of_writers(&writers), Health::Good);
        writers.is_new(&"events".into(), &"writer9".into());
        let Health::Bad(reason) = of_writers(&writers) else { panic!("its rows arrive") };
        assert!(reason.starts_with("ignores events of writer9, which the configuration does not name"), "{reason}");
        advance(HEARD_WITHIN + Duration::from_millis(1)).await;
        assert_eq!(of_writers(&writers), Health::Degraded(reason));
    }
}
