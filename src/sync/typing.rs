//! The position of a client in `typing`, a stream that is kept in memory and starts anew with its writer.
//!
//! A follower of `typing` drops its rows and fetches all of them whenever it reconnects, and the fetched rows do not
//! include rooms that the writer has dropped. Besides, the writer may be a Synapse, whose next run numbers from 1 and may
//! already have passed a client's number. (Synapse compares the numbers alone, and a client then keeps seeing the users who
//! typed in the old run.) So a client's number also names the stretch of an instance's memory in which it counts. A client
//! from another stretch receives all rooms, marked as complete.
//!
//! The position is one plain number all the same, as in Synapse: the stretch in the upper half, drawn at random, and the row
//! in the lower. So the number may go down, unlike every other part of a token.

use std::cell::Cell;
use std::rc::Rc;

use rand::RngExt;

use crate::streams::typing::TypingHandler;
use squall_env::SeedTree;
use squall_protocol::rows::{Row, Updates};
use squall_protocol::{Token, TypingNews, TypingPosition};

/// The typing users, for the clients of one instance.
pub(super) struct Typing {
    handler: Rc<TypingHandler>,
    seeds: SeedTree,
    /// The current stretch, with the number of resets at its beginning.
    stretch: Cell<Option<(u64, u32)>>,
}

impl Typing {
    /// Creates the view of `handler`. `seeds` is this process's own.
    pub(super) fn new(handler: Rc<TypingHandler>, seeds: SeedTree) -> Self {
        Typing { handler, seeds, stretch: Cell::new(None) }
    }

    /// Returns the position after the last change.
    pub(super) fn now(&self) -> TypingPosition {
        TypingPosition { stretch: self.stretch(), serial: self.handler.serial().0 as u32 }
    }

    fn stretch(&self) -> u32 {
        let resets = self.handler.resets();
        if let Some((_, stretch)) = self.stretch.get().filter(|(begun_with, _)| *begun_with == resets) {
            return stretch;
        }
        // A stretch is never 0, which a token of another server has there.
        let stretch = self.seeds.child(resets).rng().random_range(1..=u32::MAX >> 1);
        self.stretch.set(Some((resets, stretch)));
        stretch
    }

    /// Returns the changes since `from`.
    pub(super) fn news(&self, from: TypingPosition) -> TypingNews {
        let now = self.now();
        let known = Token(Token::beginning_of(self.handler.serial().run()).0 + i64::from(from.serial));
        let is_all = from.stretch != now.stretch || from.serial > now.serial || known < self.handler.forgotten_upto();
        let from = if is_all { Token(0) } else { known };
        let Updates { rows, .. } = self.handler.updates(from, self.handler.serial(), usize::MAX);
        let typing = |(_, row): (Token, Row)| match row {
            Row::Typing(row) => Some(row),
            _ => None,
        };
        TypingNews { is_all, rooms: rows.into_iter().filter_map(typing).collect() }
    }
}
