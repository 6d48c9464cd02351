//! Events that cease to be outliers.
//!
//! Their first row keeps its place in the stream but is no longer what was committed there: a follower who fetches it
//! late gets it as it is now. Both are right, once the event has ceased to be an outlier and not before.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::streams::events::EventRow;
use crate::streams::{EventsRow, Row};

/// Every event that was an outlier once, and whether it still is.
#[derive(Debug, Default)]
pub(super) struct Outliers {
    has_ceased: BTreeMap<String, bool>,
}

impl Outliers {
    /// `row` was committed.
    pub fn written(&mut self, row: &Row) {
        let Row::Events(EventsRow::Event(EventRow { event_id, outlier, .. })) = row else { return };
        if *outlier {
            self.has_ceased.insert(event_id.clone(), false);
        } else if let Some(has_ceased) = self.has_ceased.get_mut(event_id) {
            *has_ceased = true;
        }
    }

    /// The rows `applied` under a token, those of former outliers as they were `committed` under it.
    pub fn as_committed<'a>(&self, committed: &[Row], applied: &'a [Row]) -> Cow<'a, [Row]> {
        let mut rows = Cow::Borrowed(applied);
        for (index, row) in applied.iter().enumerate() {
            let Row::Events(EventsRow::Event(event)) = row else { continue };
            if !event.outlier && self.has_ceased.get(&event.event_id) == Some(&true) {
                let before = Row::Events(EventsRow::Event(EventRow { outlier: true, ..event.clone() }));
                if committed.contains(&before) {
                    rows.to_mut()[index] = before;
                }
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::invariants::made_up::event;

    fn outlier(event_id: &str) -> Row {
        match event(event_id) {
            Row::Events(EventsRow::Event(event)) => Row::Events(EventsRow::Event(EventRow { outlier: true, ..event })),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_row_of_a_former_outlier_may_come_either_way() {
        let mut outliers = Outliers::default();
        outliers.written(&outlier("a"));
        let (committed, changed) = ([outlier("a")], [event("a")]);
        assert_eq!(*outliers.as_committed(&committed, &changed), changed, "it is one still");
        outliers.written(&event("a"));
        assert_eq!(*outliers.as_committed(&committed, &changed), committed);
        assert_eq!(*outliers.as_committed(&committed, &committed), committed);
    }

    #[test]
    fn no_other_row_is_taken_for_what_it_was() {
        let mut outliers = Outliers::default();
        outliers.written(&outlier("a"));
        outliers.written(&event("a"));
        outliers.written(&event("b"));
        let again = [event("a"), event("b")];
        assert_eq!(*outliers.as_committed(&again, &again), again, "the row that says that it ceased to be one");
        assert_eq!(*outliers.as_committed(&[outlier("b")], &[event("b")]), [event("b")], "it never was one");
    }
}
