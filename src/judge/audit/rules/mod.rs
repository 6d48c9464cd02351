//! Rules: one property of the traffic per file.

mod acknowledgements_follow;
mod announcements_are_own;
mod batches_whole;
mod commands_in_direction;
mod one_writer;
mod payloads_readable;
mod positions_hide_no_rows;
mod positions_meet;
mod replicate_answered_once;
mod replicates_bounded;
mod rows_complete;
mod syncs_cleared;
mod tokens_ascend;

pub use acknowledgements_follow::AcknowledgementsFollow;
pub use announcements_are_own::AnnouncementsAreOwn;
pub use batches_whole::BatchesWhole;
pub use commands_in_direction::CommandsInDirection;
pub use one_writer::OneWriter;
pub use payloads_readable::PayloadsReadable;
pub use positions_hide_no_rows::PositionsHideNoRows;
pub use positions_meet::PositionsMeet;
pub use replicate_answered_once::ReplicateAnsweredOnce;
pub use replicates_bounded::ReplicatesBounded;
pub use rows_complete::RowsComplete;
pub use syncs_cleared::{SILENT_FOR_MS, SyncsCleared};
pub use tokens_ascend::TokensAscend;

use super::{Findings, Heard, Writers};
use crate::judge::observation::Moment;

/// The name of every rule.
pub const NAMES: &[&str] = &[
    "acknowledgements_follow",
    "announcements_are_own",
    "batches_whole",
    "commands_in_direction",
    "one_writer",
    "payloads_readable",
    "positions_hide_no_rows",
    "positions_meet",
    "replicate_answered_once",
    "replicates_bounded",
    "rows_complete",
    "syncs_cleared",
    "tokens_ascend",
];

/// Every rule, having heard nothing yet, and knowing who writes these streams.
pub fn all(writers: &Writers) -> Vec<Box<dyn Rule>> {
    vec![
        Box::new(AcknowledgementsFollow::default()),
        Box::new(AnnouncementsAreOwn::default()),
        Box::new(BatchesWhole::default()),
        Box::new(CommandsInDirection::default()),
        Box::new(OneWriter::new(writers.clone())),
        Box::new(PayloadsReadable::default()),
        Box::new(PositionsHideNoRows::default()),
        Box::new(PositionsMeet::default()),
        Box::new(ReplicateAnsweredOnce::default()),
        Box::new(ReplicatesBounded::default()),
        Box::new(RowsComplete::default()),
        Box::new(SyncsCleared::default()),
        Box::new(TokensAscend::default()),
    ]
}

/// A property of the traffic. Pure over what it is told: what it has not heard it does not know, and a recording may
/// begin and end at any payload. It goes on from what it finds, so that one defect is found once.
///
/// What it remembers is bounded: traffic goes on for years.
pub trait Rule {
    /// The rule's name, as fingerprints begin.
    fn name(&self) -> &'static str;

    /// Takes one payload into account.
    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings);

    /// It is `now`, and nothing else was said until now.
    fn tick(&mut self, _now: Option<Moment>, _findings: &mut Findings) {}

    /// What was said until `now` may not have been heard. Forgets what depends on having heard everything, so that nobody
    /// is accused of what was not heard.
    fn missed(&mut self, now: Option<Moment>);

    /// Nothing more comes; the last payload came at `at`.
    fn end(&mut self, _at: Option<Moment>, _findings: &mut Findings) {}

    /// How often the rule could have been violated. Where it never could, it has told nothing.
    fn judged(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_goes_by_its_name() {
        let names: Vec<_> = all(&Writers::new()).iter().map(|rule| rule.name()).collect();
        assert_eq!(names, NAMES);
    }
}
