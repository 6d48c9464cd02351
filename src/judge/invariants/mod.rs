//! Invariants: one property per file.

mod caches_fresh_after_wait;
mod clients_miss_nothing;
mod no_missed_rows;
mod no_tight_reconnect;
mod one_effect_per_transaction;
mod queues_bounded;
mod tokens_never_go_back;
mod user_syncs_cleared;

pub use caches_fresh_after_wait::CachesFreshAfterWait;
pub use clients_miss_nothing::ClientsMissNothing;
pub use no_missed_rows::NoMissedRows;
pub use no_tight_reconnect::NoTightReconnect;
pub use one_effect_per_transaction::OneEffectPerTransaction;
pub use queues_bounded::QueuesBounded;
pub use tokens_never_go_back::TokensNeverGoBack;
pub use user_syncs_cleared::UserSyncsCleared;

use super::observation::{Moment, Observation};
use super::pending::Pending;
use super::topology::Topology;
use super::violation::Violation;

/// The name of every invariant.
pub const NAMES: &[&str] = &[
    "caches_fresh_after_wait",
    "clients_miss_nothing",
    "no_missed_rows",
    "no_tight_reconnect",
    "one_effect_per_transaction",
    "queues_bounded",
    "tokens_never_go_back",
    "user_syncs_cleared",
];

/// Every invariant, for a deployment.
pub fn all(topology: &Topology) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(CachesFreshAfterWait::default()),
        Box::new(ClientsMissNothing::new(topology)),
        Box::new(NoMissedRows::new(topology)),
        Box::new(NoTightReconnect::new(topology)),
        Box::new(OneEffectPerTransaction::default()),
        Box::new(QueuesBounded::default()),
        Box::new(TokensNeverGoBack::new(topology)),
        Box::new(UserSyncsCleared::new(topology)),
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
