//! What the judge knows of reads: which rows change what a client can read.
//!
//! The stack has its own idea of that, by which it invalidates its caches; a wrong one is a defect to be found, so it
//! is not asked.

use crate::caches::Cached;
use crate::streams::events::{EventRow, StateAllRow, StateRow};
use crate::streams::{AccountDataRow, EventsRow, ReceiptsRow, Row};

/// What `row` changes, if clients read it.
pub(super) fn changed_by(row: &Row) -> Option<Cached> {
    let changed = match row {
        Row::Events(EventsRow::Event(EventRow { event_id, .. })) => Cached::Event { event_id: event_id.clone() },
        Row::Events(EventsRow::State(StateRow { room_id, .. }) | EventsRow::StateAll(StateAllRow { room_id })) => {
            Cached::State { room_id: room_id.clone() }
        }
        Row::Receipts(ReceiptsRow { room_id, .. }) => Cached::Receipts { room_id: room_id.clone() },
        Row::AccountData(AccountDataRow { user_id, room_id: None, .. }) => {
            Cached::AccountData { user_id: user_id.clone() }
        }
        Row::AccountData(AccountDataRow { user_id, room_id: Some(room_id), .. }) => {
            Cached::RoomAccountData { user_id: user_id.clone(), room_id: room_id.clone() }
        }
        Row::Caches(_) | Row::Presence(_) | Row::ToDevice(_) | Row::Typing(_) => return None,
    };
    Some(changed)
}
