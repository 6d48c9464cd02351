//! Invariants: one property per file.

mod caches_fresh_after_wait;
mod catch_up_bounded;
mod causes_bounded;
mod clients_miss_nothing;
mod directions_kept;
#[cfg(test)]
mod made_up;
mod no_id_in_flight;
mod no_missed_rows;
mod no_position_over_uncommitted;
mod no_tight_reconnect;
mod one_effect_per_transaction;
mod only_committed_applied;
mod positions_hide_no_row;
mod positions_never_go_back;
mod queues_bounded;
mod reconnects_in_time;
mod strangers_isolated;
mod tokens_never_go_back;
mod tokens_whole;
mod user_syncs_cleared;
mod waits_resolve;
mod writers_announce;

pub use caches_fresh_after_wait::CachesFreshAfterWait;
pub use catch_up_bounded::CatchUpBounded;
pub use causes_bounded::CausesBounded;
pub use clients_miss_nothing::ClientsMissNothing;
pub use directions_kept::DirectionsKept;
pub use no_id_in_flight::NoIdInFlight;
pub use no_missed_rows::NoMissedRows;
pub use no_position_over_uncommitted::NoPositionOverUncommitted;
pub use no_tight_reconnect::NoTightReconnect;
pub use one_effect_per_transaction::OneEffectPerTransaction;
pub use only_committed_applied::OnlyCommittedApplied;
pub use positions_hide_no_row::PositionsHideNoRow;
pub use positions_never_go_back::PositionsNeverGoBack;
pub use queues_bounded::QueuesBounded;
pub use reconnects_in_time::ReconnectsInTime;
pub use strangers_isolated::StrangersIsolated;
pub use tokens_never_go_back::TokensNeverGoBack;
pub use tokens_whole::TokensWhole;
pub use user_syncs_cleared::UserSyncsCleared;
pub use waits_resolve::WaitsResolve;
pub use writers_announce::WritersAnnounce;

use super::observation::{Moment, Observation};
use super::pending::Pending;
use super::topology::Topology;
use super::violation::Violation;

/// The name of every invariant.
pub const NAMES: &[&str] = &[
    "caches_fresh_after_wait",
    "catch_up_bounded",
    "causes_bounded",
    "clients_miss_nothing",
    "directions_kept",
    "no_id_in_flight",
    "no_missed_rows",
    "no_position_over_uncommitted",
    "no_tight_reconnect",
    "one_effect_per_transaction",
    "only_committed_applied",
    "positions_hide_no_row",
    "positions_never_go_back",
    "queues_bounded",
    "reconnects_in_time",
    "strangers_isolated",
    "tokens_never_go_back",
    "tokens_whole",
    "user_syncs_cleared",
    "waits_resolve",
    "writers_announce",
];

/// Every invariant, for a deployment.
pub fn all(topology: &Topology) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(CachesFreshAfterWait::default()),
        Box::new(CatchUpBounded::new(topology)),
        Box::new(CausesBounded::default()),
        Box::new(ClientsMissNothing::new(topology)),
        Box::new(DirectionsKept::default()),
        Box::new(NoIdInFlight::new(topology)),
        Box::new(NoMissedRows::new(topology)),
        Box::new(NoPositionOverUncommitted::new(topology)),
        Box::new(NoTightReconnect::new(topology)),
        Box::new(OneEffectPerTransaction::default()),
        Box::new(OnlyCommittedApplied::new(topology)),
        Box::new(PositionsHideNoRow::new(topology)),
        Box::new(PositionsNeverGoBack::new(topology)),
        Box::new(QueuesBounded::default()),
        Box::new(ReconnectsInTime::default()),
        Box::new(StrangersIsolated::default()),
        Box::new(TokensNeverGoBack::new(topology)),
        Box::new(TokensWhole::new(topology)),
        Box::new(UserSyncsCleared::new(topology)),
        Box::new(WaitsResolve::default()),
        Box::new(WritersAnnounce::new(topology)),
    ]
}

/// A property that must hold at every step of a run.
///
/// It is pure over observations: it has no clock, and what it has not observed it does not know.
pub trait Invariant {
    /// The invariant's name, as fingerprints begin.
    fn name(&self) -> &'static str;

    /// Takes one observation into account.
    ///
    /// # Errors
    /// What the observation violates. The invariant goes on from there, so that one violation is reported once.
    fn observe(&mut self, at: Moment, observation: &Observation) -> Result<(), Violation>;

    /// What has to happen yet; once the storm is over, it must within the calm bound.
    fn pending(&self) -> Vec<Pending> {
        Vec::new()
    }

    /// How often the property could have been violated. One that was never exercised proves nothing.
    fn exercised(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_goes_by_its_name() {
        let invariants = all(&Topology::default());
        let names: Vec<_> = invariants.iter().map(|invariant| invariant.name()).collect();
        assert_eq!(names, NAMES);
    }
}
