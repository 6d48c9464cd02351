//! The replicated streams, as one instance sees them.
//!
//! A stream of the database is a [`DatabaseStream`] over its [`Source`](crate::store::Source). A stream in memory has its
//! own type.

mod cache_view;
mod database;
mod stream;
pub mod typing;

pub use cache_view::{CacheView, CacheViews};
pub use database::DatabaseStream;
pub use stream::{RemoteUpdates, Stream, UpdateError};

use crate::store::SOURCES;
use squall_protocol::rows;

/// Returns the names of the streams that an instance serves and follows. Rows of other streams can be parsed, but no
/// instance has them.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.into_iter().map(|source| source.name).chain([rows::typing::NAME])
}
