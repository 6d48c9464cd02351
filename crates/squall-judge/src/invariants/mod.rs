//! Invariants: one property per file, with its violation.
//!
//! An invariant's file holds all that belongs to it: the property, the upstream defect that it comes from, the reason why
//! it raises no false alarm, its `Violation`, and its tests. The line in `invariants!` registers it under the name of
//! its module.

use serde::Serialize;
use thiserror::Error;

use super::invariant::Invariant;
use super::observation::{Kind, Observation, SimTime};
use super::pending::Pending;
use super::scene::Scene;
use super::topology::Topology;
use super::violation::fingerprint;

#[cfg(test)]
pub(super) mod made_up;

/// Declares the modules of the invariants, and everything that has a part for each of them.
macro_rules! invariants {
    ($($module:ident::$Invariant:ident,)+) => {
        $(pub mod $module;)+

        /// The name of every invariant.
        pub const NAMES: &[&str] = &[$(stringify!($module)),+];

        /// A violation of any invariant: the evidence, under the invariant that it violates.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
        #[serde(untagged)]
        pub enum Violation {
            $(
                #[doc = concat!("A violation of [`", stringify!($module), "`].")]
                #[error(transparent)]
                $Invariant(#[from] $module::Violation),
            )+
        }

        impl Violation {
            /// Returns the name of the invariant that was violated.
            pub fn invariant(&self) -> &'static str {
                match self {
                    $(Violation::$Invariant(_) => stringify!($module),)+
                }
            }

            /// Returns `invariant/stream/kind`, or `invariant/kind` where no stream is concerned.
            pub fn fingerprint(&self) -> String {
                match self {
                    $(Violation::$Invariant(violation) => fingerprint(
                        stringify!($module),
                        violation,
                        $module::$Invariant::FINGERPRINT_NAMES_STREAM,
                    ),)+
                }
            }
        }

        /// Returns every invariant, for a deployment.
        pub(super) fn all(topology: &Topology) -> Vec<Box<dyn Check>> {
            vec![$(Box::new(Named {
                name: stringify!($module),
                invariant: $module::$Invariant::new(topology),
            })),+]
        }
    };
}

invariants! {
    acknowledged_durable::AcknowledgedDurable,
    amplification_bounded::AmplificationBounded,
    broadcasts_arrive::BroadcastsArrive,
    caches_fresh_after_wait::CachesFreshAfterWait,
    catch_up_bounded::CatchUpBounded,
    clients_miss_nothing::ClientsMissNothing,
    connections_kept::ConnectionsKept,
    directions_kept::DirectionsKept,
    no_id_in_flight::NoIdInFlight,
    no_missed_rows::NoMissedRows,
    no_position_over_uncommitted::NoPositionOverUncommitted,
    no_tight_reconnect::NoTightReconnect,
    one_effect_per_transaction::OneEffectPerTransaction,
    only_committed_applied::OnlyCommittedApplied,
    positions_hide_no_row::PositionsHideNoRow,
    positions_never_go_back::PositionsNeverGoBack,
    presence_as_set::PresenceAsSet,
    queues_bounded::QueuesBounded,
    reconnects_in_time::ReconnectsInTime,
    reconnects_spread::ReconnectsSpread,
    requests_answered::RequestsAnswered,
    rows_in_time::RowsInTime,
    syncs_in_time::SyncsInTime,
    tokens_never_go_back::TokensNeverGoBack,
    tokens_whole::TokensWhole,
    typing_as_set::TypingAsSet,
    unknown_rows_isolated::UnknownRowsIsolated,
    user_syncs_cleared::UserSyncsCleared,
    waits_resolve::WaitsResolve,
    writers_announce::WritersAnnounce,
    writes_read_back::WritesReadBack,
}

/// An invariant of any type, as the judge runs it.
pub(super) trait Check {
    /// Returns the invariant's name.
    fn name(&self) -> &'static str;
    /// See [`Invariant::OBSERVES`].
    fn observes(&self) -> &'static [Kind];
    /// See [`Invariant::observe`].
    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation>;
    /// See [`Invariant::pending`].
    fn pending<'a>(&'a self, scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a>;
    /// See [`Invariant::is_pending`].
    fn is_pending(&self, scene: &Scene) -> bool;
    /// See [`Invariant::exercised`].
    fn exercised(&self) -> u64;
}

/// An invariant under the name that it is registered by.
struct Named<I> {
    name: &'static str,
    invariant: I,
}

impl<I: Invariant<Violation: Into<Violation>>> Check for Named<I> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn observes(&self) -> &'static [Kind] {
        I::OBSERVES
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        self.invariant.observe(at, observation, scene).map_err(Into::into)
    }

    fn pending<'a>(&'a self, scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a> {
        self.invariant.pending(scene)
    }

    fn is_pending(&self, scene: &Scene) -> bool {
        self.invariant.is_pending(scene)
    }

    fn exercised(&self) -> u64 {
        self.invariant.exercised()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::FollowerKey;
    use squall_protocol::{InstanceName, Token};

    fn missed(tokens: &[i64]) -> Violation {
        let follower = FollowerKey::new(&"worker2".into(), &"events".into(), &"writer1".into());
        let tokens = tokens.iter().copied().map(Token).collect();
        no_missed_rows::Violation::Missed { follower, tokens, from: Token(16), to: Token(40) }.into()
    }

    #[test]
    fn every_invariant_is_checked_under_its_name() {
        let invariants = all(&Topology::default());
        let names: Vec<_> = invariants.iter().map(|invariant| invariant.name()).collect();
        assert_eq!(names, NAMES);
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn a_fingerprint_does_not_change_with_the_seed() {
        assert_eq!(missed(&[17, 18]).fingerprint(), "no_missed_rows/events/missed");
        assert_eq!(missed(&[17, 18]).fingerprint(), missed(&[30]).fingerprint());
        let instance = InstanceName::from("a");
        let target = InstanceName::from("b");
        let overlapping = Violation::from(no_tight_reconnect::Violation::Overlapping { instance, target });
        assert_eq!(overlapping.fingerprint(), "no_tight_reconnect/overlapping");
    }

    #[test]
    fn the_json_is_flat_and_has_the_kind_of_the_fingerprint() {
        let json = serde_json::to_value(missed(&[17])).unwrap();
        let expected = serde_json::json!({
            "kind": "missed", "instance": "worker2", "stream": "events", "writer": "writer1",
            "tokens": [17], "from": 16, "to": 40,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_sentence_carries_the_evidence() {
        let sentence = missed(&[17, 18]).to_string();
        assert_eq!(sentence, "events of writer1 on worker2: went from 16 to 40 without the rows of 17, 18");
    }
}
