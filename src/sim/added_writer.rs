//! A writer is added to a deployment that runs.
//!
//! The configuration of the start does not name the writer. Then the instances get the configuration that does, one after the
//! other, each by a restart; until the last one has it, configurations differ. The new writer starts last, as
//! `docs/operators.md` says, so no row of it comes to an instance that does not know it.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::faults::{Cluster, Fault, Restart};
use super::plan::AddedWriter;
use super::world::World;
use squall_judge::Observation;
use squall_protocol::InstanceName;

/// The time for which an instance stays down between its two configurations, in milliseconds.
const DOWN_MS: u64 = 500;
/// The time after which an instance that another fault keeps down is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Gives every instance the newer configuration, and then starts the writer that is added.
pub(super) async fn add(world: Rc<World>, added: AddedWriter) {
    let AddedWriter { host: added, at_ms, pause_ms } = added;
    let added = InstanceName::from(added);
    sleep(Duration::from_millis(at_ms)).await;
    // From here on requests to the writer fail, until it has started.
    world.observe(&Observation::FaultBegan { hosts: vec![added.clone()] });
    for instance in world.hosts().iter().filter(|instance| **instance != added) {
        let boot = world.engine().boot(instance.as_str());
        world.rollout().reach(instance);
        while world.engine().is_up(instance.as_str()) && world.engine().boot(instance.as_str()) == boot {
            let restart = Fault::from(Restart::new(instance.as_str(), DOWN_MS));
            let end = Instant::now() + 2 * Duration::from_millis(DOWN_MS);
            // Another fault may keep the instance down already.
            if !restart.inject(&*world, end).await.unwrap_or(false) {
                sleep(LOOK_AGAIN).await;
            }
        }
        sleep(Duration::from_millis(pause_ms)).await;
    }
    world.rollout().reach(&added);
    world.start_unless_kept_down(&added);
    world.observe(&Observation::WriterAdded { instance: added.clone() });
    world.observe(&Observation::FaultEnded { hosts: vec![added], lingers_ms: 0 });
}
