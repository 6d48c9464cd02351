//! What an instance keeps in memory of replicated rows: caches, and whoever else holds a view of them.

use std::cell::RefCell;
use std::rc::Rc;

use super::Row;
use crate::protocol::Token;

/// Keeps something in memory that rows contradict. It is told of them before the position moves, its own instance's rows
/// included: whoever sees the new position must not see older state (Synapse #14723).
pub trait Keeper {
    /// `row` is about to become visible.
    fn take(&self, token: Token, row: &Row);

    /// A transaction on `stream` ended, and nobody knows whether it took effect: whatever rows of that stream could
    /// contradict must go.
    fn doubt(&self, stream: &str);
}

/// All keepers of one instance. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keepers {
    registered: Rc<RefCell<Vec<Rc<dyn Keeper>>>>,
}

impl Keepers {
    /// Adds a keeper, which is told of everything from now on.
    pub fn register(&self, keeper: Rc<dyn Keeper>) {
        self.registered.borrow_mut().push(keeper);
    }

    /// Tells every keeper of `rows` of one token.
    pub fn take<'a>(&self, token: Token, rows: impl IntoIterator<Item = &'a Row>) {
        let registered = self.registered.borrow();
        for row in rows {
            registered.iter().for_each(|keeper| keeper.take(token, row));
        }
    }

    /// Tells every keeper that nobody knows what became of a transaction on `stream`.
    pub fn doubt(&self, stream: &str) {
        self.registered.borrow().iter().for_each(|keeper| keeper.doubt(stream));
    }
}
