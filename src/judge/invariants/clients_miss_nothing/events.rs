//! What clients are told of events: each once, in the order of the tokens.
//!
//! No false alarm: an outlier is in no timeline. One that ceases to be an outlier has another row in the stream, which is
//! no news; but a client that had not come past its first row may be told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

use super::Difference;
use crate::protocol::{InstanceName, Token};
use crate::store::VectorPosition;
use crate::streams::events::EventRow;
use crate::streams::{EventsRow, Row};

/// Every event that was committed.
#[derive(Debug, Default)]
pub(super) struct Events {
    by_writer: BTreeMap<InstanceName, BTreeMap<Token, String>>,
    known: BTreeSet<String>,
    outliers: BTreeSet<String>,
}

impl Events {
    /// A row of the stream was committed.
    pub fn committed(&mut self, writer: &InstanceName, token: Token, row: &Row) {
        let Row::Events(EventsRow::Event(EventRow { event_id, outlier, .. })) = row else { return };
        if !self.known.insert(event_id.clone()) {
            return;
        }
        if *outlier {
            self.outliers.insert(event_id.clone());
        } else {
            self.by_writer.entry(writer.clone()).or_default().insert(token, event_id.clone());
        }
    }

    /// Compares what a client was told with what there is in `(since, next]`.
    pub fn judge(
        &self,
        since: &VectorPosition,
        next: &VectorPosition,
        told: &[(Token, String)],
    ) -> Result<(), Difference> {
        let mut expected: BTreeMap<Token, &String> = BTreeMap::new();
        for (writer, events) in &self.by_writer {
            let (from, upto) = (since.position_of(writer), next.position_of(writer));
            if from < upto {
                expected.extend(events.range((Excluded(from), Included(upto))).map(|(token, event)| (*token, event)));
            }
        }
        let mut upto = Token(0);
        for (token, event_id) in told {
            let is_due = expected.remove(token) == Some(event_id) || self.outliers.contains(event_id);
            if !is_due || *token <= upto {
                return Err(Difference::told_wrongly(*token, event_id));
            }
            upto = *token;
        }
        match expected.first_key_value() {
            Some((token, event_id)) => Err(Difference::not_told(*token, *event_id)),
            None => Ok(()),
        }
    }
}
