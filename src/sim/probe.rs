//! The probe: a few correct requests in the calm, of each kind, to each writer, through instances that do not write it.
//!
//! In the storm a request may fail, and its client gives up. A writer that still refuses requests when the cause is over
//! would not be noticed, because a request that wrote nothing leaves nothing to converge. So at the end of a run each
//! writer is asked once for each kind of write. A request that fails is repeated: an instance may still be about to find
//! out that a connection is dead.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::contents::room_id;
use super::plan::{OperationKind, Writing};
use super::world::World;
use squall_judge::Observation;
use squall_protocol::InstanceName;

/// The ids of the requests begin here, above those of all operations.
const FIRST_ID: usize = 1_000_000_000;
/// The number of ids for each request: one for each time that it is made.
const IDS_PER_REQUEST: usize = 1_000_000;
/// The number of rooms among which one of each writer is looked for.
const ROOMS: u32 = 1_000;
/// The user who makes the requests, and who does nothing else.
const USER: u32 = 2_000_000;
/// The time after which a request that failed is made again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Makes every request, all at once, and reports if it was answered within `bound`.
pub(super) async fn run(world: &Rc<World>, bound: Duration) {
    let requests = requests(world).into_iter().enumerate().map(|(number, (host, operation))| {
        let first_id = FIRST_ID + number * IDS_PER_REQUEST;
        tokio::task::spawn_local(make(Rc::clone(world), first_id, host, operation, bound))
    });
    let requests: Vec<_> = requests.collect();
    for request in requests {
        request.await.expect("a request ends, at the latest when the bound is over");
    }
}

async fn make(world: Rc<World>, first_id: usize, host: InstanceName, operation: OperationKind, bound: Duration) {
    let (began, deadline) = (Instant::now(), Instant::now() + bound);
    let repeated = async {
        for id in first_id.. {
            if world.probe(&host, id, operation.clone()).await {
                return;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    };
    let is_answered = tokio::time::timeout_at(deadline, repeated).await.is_ok();
    let (what, after_ms) = (operation.name(), began.elapsed().as_millis() as u64);
    world.recorder().observe(&Observation::Probed { instance: host, what, after_ms, is_answered });
}

/// Returns the requests, each with the host that it is sent to: one for each kind of write and writer. A host that cannot
/// read a stream any more is left out.
fn requests(world: &World) -> Vec<(InstanceName, OperationKind)> {
    let config = world.config();
    let writers = &config.stream_writers;
    let hosts: Vec<&InstanceName> = world.hosts().iter().filter(|host| !world.has_broken_stream(host)).collect();
    let mut requests: Vec<(InstanceName, OperationKind)> = Vec::new();
    let mut ask = |writer: &InstanceName, operation: &dyn Fn(String) -> OperationKind| {
        // The instances that write nothing come last.
        let others: Vec<&InstanceName> = hosts.iter().rev().copied().filter(|host| *host != writer).collect();
        if let Some(host) = others.get(requests.len() % others.len().max(1)).filter(|_| hosts.contains(&writer)) {
            requests.push(((*host).clone(), operation(host.to_string())));
        }
    };
    for writer in &writers.events {
        let Some(room) = room_of(|room| config.events_writer_of(room) == writer) else { continue };
        ask(writer, &|host| OperationKind::WriteThenRead { host, what: Writing::State { room }, twice: false });
    }
    for writer in &writers.receipts {
        let Some(room) = room_of(|room| config.receipts_writer_of(room) == writer) else { continue };
        ask(writer, &|host| OperationKind::WriteThenRead {
            host,
            what: Writing::Receipt { user: USER, room },
            twice: false,
        });
    }
    for (writer, what) in [
        (&writers.account_data, Writing::AccountData { user: USER, room: None, datum: 0 }),
        (&writers.account_data, Writing::AccountData { user: USER, room: Some(0), datum: 0 }),
        (&writers.to_device, Writing::ToDevice { user: USER }),
        (&writers.presence, Writing::Presence { user: USER }),
        (&writers.typing, Writing::Typing { user: USER, room: 0 }),
    ] {
        ask(writer, &|host| OperationKind::WriteThenRead { host, what: what.clone(), twice: false });
    }
    requests
}

/// Returns the first room whose id is one of those that `is_right` accepts.
fn room_of(is_right: impl Fn(&str) -> bool) -> Option<u32> {
    (0..ROOMS).find(|room| is_right(&room_id(*room)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Plan;
    use crate::sim::runner;
    use crate::sim::testing::{in_world, small_plan};

    #[test]
    fn each_writer_is_asked_once_for_each_kind_and_never_through_itself() {
        in_world(|world| async move {
            let requests = requests(&world);
            assert_eq!(requests.len(), 7);
            for (host, operation) in &requests {
                assert_eq!(operation.host(), Some(host.as_str()));
                let is_event = matches!(operation, OperationKind::WriteThenRead { what: Writing::State { .. }, .. });
                assert_ne!(host.as_str(), if is_event { "writer1" } else { "master" });
            }
        });
    }

    #[test]
    fn a_probe_is_answered_where_nothing_is_wrong_and_changes_nothing_before_the_calm() {
        let with = |has_probe| runner::judge(&Plan { has_probe, ..small_plan() });
        let (with, without) = (with(true), with(false));
        assert!(with.passed() && without.passed(), "{with:?}");
        assert_eq!((with.exercised["requests_answered"], without.exercised["requests_answered"]), (7, 0));
        assert!(with.simulated_ms < without.simulated_ms + 1_000, "{} ms", with.simulated_ms);
    }
}
