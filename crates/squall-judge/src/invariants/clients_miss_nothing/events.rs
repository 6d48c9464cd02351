//! Events in answers: each once, in the order of the tokens.
//!
//! An outlier is in no timeline. An event that ceases to be one has a second row in the stream, and enters the timeline at
//! the token of that row: not before, and not again (Synapse #8605, #17635).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

use super::difference::Difference;
use crate::due::Position;
use squall_protocol::rows::events::EventRow;
use squall_protocol::rows::{EventsRow, Row};
use squall_protocol::{InstanceName, Token};

/// The committed events.
#[derive(Debug, Default)]
pub(super) struct Events {
    by_writer: BTreeMap<InstanceName, BTreeMap<Token, String>>,
    /// The events in timelines.
    known: BTreeSet<String>,
}

impl Events {
    /// Records a committed row of the stream.
    pub(super) fn committed(&mut self, writer: &InstanceName, token: Token, row: &Row) {
        let Row::Events(EventsRow::Event(EventRow { event_id, outlier, .. })) = row else { return };
        if !outlier && self.known.insert(event_id.clone()) {
            self.by_writer.entry(writer.clone()).or_default().insert(token, event_id.clone());
        }
    }

    /// Compares the events that a client got with the committed ones in `(since, next]`.
    pub(super) fn judge(
        &self,
        since: &Position<'_>,
        next: &Position<'_>,
        answered: &[(Token, String)],
    ) -> Result<(), Difference> {
        let mut expected: BTreeMap<Token, &String> = BTreeMap::new();
        for (writer, events) in &self.by_writer {
            let from = since.of_writer(writer);
            let upto = next.of_writer(writer);
            if from < upto {
                expected.extend(events.range((Excluded(from), Included(upto))).map(|(token, event)| (*token, event)));
            }
        }
        let mut upto = Token(0);
        for (token, event_id) in answered {
            if expected.remove(token) != Some(event_id) || *token <= upto {
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
