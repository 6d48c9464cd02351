//! Events that cease to be outliers.
//!
//! Their first row keeps its place in the stream but is no longer the row that was committed there. A follower that
//! fetches it late gets it as it is now. Both forms are right once the event has ceased to be an outlier, not before.

use std::borrow::Cow;
use std::collections::BTreeMap;

use squall_protocol::rows::events::EventRow;
use squall_protocol::rows::{EventsRow, Row};

/// Every event that was an outlier once: true if it has ceased to be one.
#[derive(Debug, Default)]
pub(super) struct Outliers {
    has_ceased: BTreeMap<String, bool>,
}

impl Outliers {
    /// Records a committed row.
    pub(super) fn written(&mut self, row: &Row) {
        let Row::Events(EventsRow::Event(EventRow { event_id, outlier, .. })) = row else { return };
        if *outlier {
            self.has_ceased.insert(event_id.clone(), false);
        } else if let Some(has_ceased) = self.has_ceased.get_mut(event_id) {
            *has_ceased = true;
        }
    }

    /// Returns the rows `applied` under a token, with former outliers in the form that was `committed` under it.
    pub(super) fn as_committed<'a>(&self, committed: &[Row], applied: &'a [Row]) -> Cow<'a, [Row]> {
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
    use crate::invariants::made_up::event;

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
        assert_eq!(*outliers.as_committed(&committed, &changed), changed, "it still is an outlier");
        outliers.written(&event("a"));
        assert_eq!(*outliers.as_committed(&committed, &changed), committed);
        assert_eq!(*outliers.as_committed(&committed, &committed), committed);
    }

    #[test]
    fn no_other_row_is_changed_back() {
        let mut outliers = Outliers::default();
        outliers.written(&outlier("a"));
        outliers.written(&event("a"));
        outliers.written(&event("b"));
        let again = [event("a"), event("b")];
        assert_eq!(*outliers.as_committed(&again, &again), again, "the row that says that it ceased to be one");
        assert_eq!(*outliers.as_committed(&[outlier("b")], &[event("b")]), [event("b")], "it never was an outlier");
    }
}
