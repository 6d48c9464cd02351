//! Clock step: the wall clock of a host goes forwards or backwards.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::invalid::{InvalidValue, check_at_most};
use squall_netsim::Unsupported;
use squall_protocol::InstanceName;

/// The longest step, in milliseconds: a day.
const BY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// A step of the wall clock of one host, which its next processes see too. Durations and deadlines do not depend on it.
///
/// A clock that was never right makes its step at the start. The clock of a virtual machine goes forwards when the machine
/// continues after a pause, and a time service corrects any clock in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockStep {
    /// The host.
    pub host: String,
    /// The milliseconds by which its clock goes forwards; less than 0 if it goes backwards.
    pub by_ms: i64,
}

impl FaultKind for ClockStep {
    const PER_PLAN: RangeInclusive<u32> = 1..=6;
    const WIDE_ONLY: bool = true;
    // Nothing that the judge sees may depend on the time of day.
    const DISTURBS: bool = false;
    const SHRINKABLE: &'static [&'static str] = &[];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let host = draw.instance();
        let by_ms = draw.one_of(&[50, 1_000, 10_000, 60_000, 600_000, 7_200_000]);
        let sign = draw.one_of(&[-1, 1]);
        Some(ClockStep { host, by_ms: sign * by_ms })
    }

    fn check(&self) -> Result<(), InvalidValue> {
        check_at_most(self.by_ms.unsigned_abs(), BY_MS_MAX)
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        0
    }

    async fn inject(self, cluster: &dyn Cluster, _span: Span) -> Result<bool, Unsupported> {
        cluster.step_clock(&InstanceName::from(&*self.host), self.by_ms);
        Ok(self.by_ms != 0)
    }

    fn describe(&self) -> String {
        let way = if self.by_ms < 0 { "backwards" } else { "forwards" };
        format!("clock step: the clock of {} goes {way} by {} ms", self.host, self.by_ms.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::faults::{Fault, PowerCut};
    use crate::sim::plan::{FaultEntry, Operation, OperationKind};
    use crate::sim::runner;
    use crate::sim::testing::{in_world, small_plan, takes_effect};

    #[test]
    fn a_step_moves_the_clock_and_excuses_nothing() {
        in_world(|world| async move {
            let step = |by_ms| Fault::from(ClockStep { host: "worker1".into(), by_ms });
            assert!(step(1_000).disturbs(&*world).is_empty());
            assert_eq!(Fault::from(PowerCut::new("worker1", 500)).disturbs(&*world), [InstanceName::from("worker1")]);
            assert!(takes_effect(&world, step(-1_000)).await);
            assert!(!takes_effect(&world, step(0)).await);
        });
    }

    #[test]
    fn a_process_starts_although_its_clock_shows_an_earlier_time_than_its_predecessors_did() {
        let mut plan = small_plan();
        let writer = plan.topology.events_writers[0].clone();
        let step = ClockStep { host: writer.clone(), by_ms: -7_200_000 };
        let power_cut = PowerCut::new(&writer, 500);
        plan.faults =
            vec![FaultEntry { at_ms: 3_000, fault: step.into() }, FaultEntry { at_ms: 3_500, fault: power_cut.into() }];
        plan.operations = vec![Operation::new(6_000, OperationKind::Send { room: 1 })];
        let verdict = runner::judge(&plan);
        assert!(verdict.passed(), "{verdict:?}");
        assert_eq!((verdict.faults, verdict.rows_committed), (2, 1));
    }
}
