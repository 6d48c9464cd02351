//! What clients do during the storm: they send events, change state in bursts, and type.

use std::rc::Rc;
use std::time::Duration;

use super::plan::OperationKind;
use crate::instance::{Config, Instance, Write};
use crate::protocol::InstanceName;
use crate::store::{NewEvent, StateDelta};

/// The room that plans call number `room`.
pub fn room_id(room: u32) -> String {
    format!("!room{room}:squall.test")
}

/// The user that plans call number `user`.
pub fn user_id(user: u32) -> String {
    format!("@user{user}:squall.test")
}

/// The instance that has to carry out `operation`.
pub fn target<'a>(config: &'a Config, operation: &OperationKind) -> &'a InstanceName {
    match operation {
        OperationKind::Send { room }
        | OperationKind::SendBurst { room, .. }
        | OperationKind::StateBurst { room, .. } => config.events_writer_of(&room_id(*room)),
        OperationKind::Typing { .. } => &config.stream_writers.typing,
    }
}

/// Carries out an operation on `instance`. `ordinal` is its place in the plan and makes its event ids unique.
///
/// An operation that fails is one that a client would have to repeat; what it did commit counts all the same.
pub async fn perform(instance: Rc<Instance>, ordinal: usize, operation: OperationKind) {
    let writes = match operation {
        OperationKind::Send { room } => vec![message(ordinal, 0, room)],
        OperationKind::SendBurst { room, events } => (0..events).map(|n| message(ordinal, n, room)).collect(),
        OperationKind::StateBurst { room, rows, tokens } => state_burst(ordinal, room, rows, tokens),
        OperationKind::Typing { room, user, typing: true, timeout_ms } => {
            let timeout = Duration::from_millis(timeout_ms);
            instance.typing().started(&instance.env().tasks, &room_id(room), &user_id(user), timeout);
            return;
        }
        OperationKind::Typing { room, user, typing: false, .. } => {
            instance.typing().stopped(&room_id(room), &user_id(user));
            return;
        }
    };
    let _ = instance.events().persist(writes).await;
}

fn message(ordinal: usize, n: u32, room: u32) -> Write {
    let event = NewEvent::message(format!("$event{ordinal}_{n}"), room_id(room));
    Write { event: Some(event), state: Vec::new() }
}

/// `rows` changes of state spread evenly over `tokens` tokens.
fn state_burst(ordinal: usize, room: u32, rows: u32, tokens: u32) -> Vec<Write> {
    let entry = |row: u32| StateDelta {
        room_id: room_id(room),
        kind: "m.room.member".into(),
        state_key: user_id(row),
        event_id: Some(format!("$state{ordinal}_{row}")),
    };
    let tokens = tokens.clamp(1, rows.max(1));
    let first_row = |token: u32| (u64::from(rows) * u64::from(token) / u64::from(tokens)) as u32;
    let write = |token| Write { event: None, state: (first_row(token)..first_row(token + 1)).map(entry).collect() };
    (0..tokens).map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_has_exactly_its_rows_on_exactly_its_tokens() {
        for (rows, tokens) in [(1, 1), (49, 1), (101, 3), (150, 150)] {
            let writes = state_burst(0, 0, rows, tokens);
            assert_eq!(writes.len(), tokens as usize);
            assert!(writes.iter().all(|write| !write.state.is_empty()));
            assert_eq!(writes.iter().map(|write| write.state.len()).sum::<usize>(), rows as usize);
        }
    }
}
