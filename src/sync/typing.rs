//! Where a client stands in `typing`, which lives in memory and begins anew with it.
//!
//! An instance that follows the writer of typing gives up what it has and fetches everything whenever it connects anew,
//! and what is fetched says nothing of rooms that the writer remembers no longer. And the writer may be a Synapse,
//! whose next run numbers from 1 and may have passed a client's number already (Synapse compares numbers alone, and a
//! client then keeps seeing whoever typed in the old run). So a client's number also says in which stretch of which
//! instance's memory it counts, and whoever comes from another one is told everything, and that it is everything.
//!
//! It is one plain number all the same, as Synapse's is: the stretch in its upper half, drawn at random, and the row in
//! the lower. The number therefore goes up and down as it pleases, and it is the only part of a token that may.

use std::cell::Cell;
use std::rc::Rc;

use rand::RngExt;

use crate::env::Chance;
use crate::protocol::Token;
use crate::streams::TypingRow;
use crate::streams::typing::TypingHandler;
use crate::streams::{Row, Updates};

/// How many bits of the number are the row's.
const SERIAL_BITS: u32 = 32;

/// Where a client stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TypingPosition {
    stretch: u32,
    serial: u32,
}

impl TypingPosition {
    /// Understands the number of a token, which is not negative.
    pub(crate) fn from_number(number: i64) -> Self {
        TypingPosition { stretch: (number >> SERIAL_BITS) as u32, serial: number as u32 }
    }

    /// The number in a token.
    pub fn to_number(self) -> i64 {
        i64::from(self.stretch) << SERIAL_BITS | i64::from(self.serial)
    }
}

/// What a client is told of typing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TypingNews {
    /// Whether this is all there is: nobody types in a room that is not named.
    pub is_all: bool,
    /// Rooms, each with everybody who types there.
    pub rooms: Vec<TypingRow>,
}

/// What one instance can tell of typing.
pub(super) struct Typing {
    handler: Rc<TypingHandler>,
    chance: Chance,
    /// The stretch that began with so many resets.
    stretch: Cell<Option<(u64, u32)>>,
}

impl Typing {
    /// What `handler` knows. `chance` is this process's own.
    pub fn new(handler: Rc<TypingHandler>, chance: Chance) -> Self {
        Typing { handler, chance, stretch: Cell::new(None) }
    }

    /// Where somebody stands who knows everything.
    pub fn now(&self) -> TypingPosition {
        TypingPosition { stretch: self.stretch(), serial: self.handler.serial().0 as u32 }
    }

    fn stretch(&self) -> u32 {
        let resets = self.handler.resets();
        if let Some((_, stretch)) = self.stretch.get().filter(|(begun_with, _)| *begun_with == resets) {
            return stretch;
        }
        // Its number is positive, and never the 0 that a token of another server has there.
        let stretch = self.chance.of(resets).rng().random_range(1..=u32::MAX >> 1);
        self.stretch.set(Some((resets, stretch)));
        stretch
    }

    /// What somebody does not know who stands at `from`.
    pub fn news(&self, from: TypingPosition) -> TypingNews {
        let now = self.now();
        let known = Token(Token::beginning_of(self.handler.serial().run()).0 + i64::from(from.serial));
        let knows_nothing =
            from.stretch != now.stretch || from.serial > now.serial || known < self.handler.forgotten_upto();
        let from = if knows_nothing { Token(0) } else { known };
        let Updates { rows, .. } = self.handler.updates(from, self.handler.serial(), usize::MAX);
        let typing = |(_, row): (Token, Row)| match row {
            Row::Typing(row) => Some(row),
            _ => None,
        };
        TypingNews { is_all: knows_nothing, rooms: rows.into_iter().filter_map(typing).collect() }
    }
}

impl TypingNews {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        !self.is_all && self.rooms.is_empty()
    }
}
