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
