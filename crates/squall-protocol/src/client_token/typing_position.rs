//! The position of a client in `typing`.

use crate::rows::TypingRow;

/// The number of bits for the row.
const SERIAL_BITS: u32 = 32;

/// The position of a client in `typing`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TypingPosition {
    /// The stretch of an instance's memory in which `serial` counts, drawn at random.
    pub stretch: u32,
    /// The number of the row.
    pub serial: u32,
}

impl TypingPosition {
    /// Converts the number in a token, which is not negative.
    pub fn from_number(number: i64) -> Self {
        TypingPosition { stretch: (number >> SERIAL_BITS) as u32, serial: number as u32 }
    }

    /// Returns the number for a token.
    pub(crate) fn to_number(self) -> i64 {
        i64::from(self.stretch) << SERIAL_BITS | i64::from(self.serial)
    }
}

/// The typing users for a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TypingNews {
    /// True if `rooms` is complete: in any other room no user is typing.
    pub is_all: bool,
    /// The rooms, each with all users who are typing there.
    pub rooms: Vec<TypingRow>,
}

impl TypingNews {
    /// Returns true if there is no change.
    pub fn is_empty(&self) -> bool {
        !self.is_all && self.rooms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_in_a_token_holds_the_stretch_and_the_row() {
        let number = 3 * (1 << 32) + 7;
        assert_eq!(TypingPosition::from_number(number), TypingPosition { stretch: 3, serial: 7 });
        for number in [0, 7, number, i64::MAX] {
            assert_eq!(TypingPosition::from_number(number).to_number(), number);
        }
    }

    #[test]
    fn that_no_user_is_typing_any_more_is_a_change() {
        let row = TypingRow { room_id: "!room:hs".into(), user_ids: Vec::new() };
        assert!(TypingNews::default().is_empty());
        assert!(!TypingNews { is_all: true, rooms: Vec::new() }.is_empty());
        assert!(!TypingNews { is_all: false, rooms: vec![row.clone()] }.is_empty());
        assert!(!TypingNews { is_all: true, rooms: vec![row] }.is_empty());
    }
}
