//! The rows that change what a client can read.
//!
//! The stack has a map of its own, by which it invalidates its caches. A mistake there is a defect to be found, so the
//! judge has another one.

use squall_protocol::Cached;
use squall_protocol::rows::events::{EventRow, StateAllRow, StateRow};
use squall_protocol::rows::{AccountDataRow, EventsRow, ReceiptsRow, Row};

/// Returns the cached value that `row` changes; none if clients do not read it.
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
        _ => return None,
    };
    Some(changed)
}
