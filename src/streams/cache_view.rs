//! The components of an instance that hold state derived from replicated rows: caches, and any other view.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use squall_protocol::Token;
use squall_protocol::rows::Row;

/// In-memory state that replicated rows change or invalidate.
///
/// Rows are applied before the position moves, those of the own instance included: a reader that sees the new position
/// must not see older state (Synapse #14723).
pub trait CacheView {
    /// Applies `row`, which is about to become visible.
    fn apply(&self, token: Token, row: &Row);

    /// Drops all state that a row of `stream` could change. Called when a transaction on `stream` has ended with an unknown
    /// result.
    fn invalidate_stream(&self, stream: &str);
}

/// All cache views of one instance. Cheap to clone.
///
/// The instance owns the views. The references here are weak, because a view may own a stream's writer, which owns this.
#[derive(Clone, Default)]
pub struct CacheViews {
    registered: Rc<RefCell<Vec<Weak<dyn CacheView>>>>,
}

impl CacheViews {
    /// Adds a view, which receives all calls until its owner drops it.
    pub fn register<V: CacheView + 'static>(&self, view: &Rc<V>) {
        let view: Weak<V> = Rc::downgrade(view);
        self.registered.borrow_mut().push(view);
    }

    /// Applies the `rows` of one token to every view.
    pub fn apply<'a>(&self, token: Token, rows: impl IntoIterator<Item = &'a Row>) {
        let registered = self.registered.borrow();
        for row in rows {
            for view in registered.iter().filter_map(Weak::upgrade) {
                view.apply(token, row);
            }
        }
    }

    /// Drops in every view all state that a row of `stream` could change.
    pub fn invalidate_stream(&self, stream: &str) {
        for view in self.registered.borrow().iter().filter_map(Weak::upgrade) {
            view.invalidate_stream(stream);
        }
    }
}
