//! Made-up rows for the tests of several properties.

use squall_protocol::rows::events::{EventRow, StateAllRow, StateRow};
use squall_protocol::rows::{EventsRow, Row, TypingRow};

/// A message event in a room of no interest.
pub(crate) fn event(id: &str) -> Row {
    Row::Events(EventsRow::Event(EventRow {
        event_id: id.to_owned(),
        room_id: "room".to_owned(),
        kind: "m.room.message".to_owned(),
        state_key: None,
        redacts: None,
        relates_to: None,
        membership: None,
        rejected: false,
        outlier: false,
    }))
}

/// The same outside its room's graph.
pub(crate) fn outlier(id: &str) -> Row {
    match event(id) {
        Row::Events(EventsRow::Event(event)) => Row::Events(EventsRow::Event(EventRow { outlier: true, ..event })),
        other => other,
    }
}

/// An entry of a room's state that became the event of the same name.
pub(crate) fn state(room: &str, key: &str) -> Row {
    Row::Events(EventsRow::State(StateRow {
        room_id: room.to_owned(),
        kind: "m.room.member".to_owned(),
        state_key: key.to_owned(),
        event_id: Some(key.to_owned()),
    }))
}

/// All of a room's state.
pub(crate) fn state_all(room: &str) -> Row {
    Row::Events(EventsRow::StateAll(StateAllRow { room_id: room.to_owned() }))
}

/// The users who are typing in a room.
pub(crate) fn typing(room: &str, users: &[&str]) -> Row {
    let user_ids = users.iter().map(|user| user.to_string()).collect();
    Row::Typing(TypingRow { room_id: room.to_owned(), user_ids })
}
