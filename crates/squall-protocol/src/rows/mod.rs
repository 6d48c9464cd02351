//! Rows: the payload of an `RDATA` line, one type per stream.
//!
//! One line in the list below registers a stream.

mod error;
mod json;
mod updates;

use serde_json::Value;

use crate::names::StreamName;

pub use error::RowError;
pub use json::Json;
pub use updates::{ROWS_TARGET, Updates};

/// Declares the module of each stream's rows, [`Row`] and [`NAMES`].
///
/// A module has the stream's `NAME` and its row type, which has `parse` and `to_json`.
macro_rules! streams {
    ($($stream:ident::$row:ident as $variant:ident,)+) => {
        $(
            pub mod $stream;
            pub use $stream::$row;
        )+

        /// The names of all streams that have a row type here.
        pub const NAMES: [&str; [$($stream::NAME),+].len()] = [$($stream::NAME),+];

        /// A row of any stream this process knows.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Row {
            $(#[doc = concat!("A row of `", stringify!($stream), "`.")] $variant($stream::$row),)+
        }

        impl Row {
            /// Parses a row of `stream`, as in `RDATA` or in an answer to `get_repl_stream_updates`.
            ///
            /// # Errors
            /// The stream is unknown, or the row does not have the shape of the stream's rows.
            pub fn parse(stream: &StreamName, row: Value) -> Result<Row, RowError> {
                let parsed = match stream.as_str() {
                    $($stream::NAME => $stream::$row::parse(&row).map(Row::$variant),)+
                    _ => return Err(RowError::UnknownStream(stream.clone())),
                };
                parsed.map_err(|cause| RowError::shape(stream, cause, &row))
            }

            /// Returns the row as it is on the wire.
            pub fn to_json(&self) -> Value {
                match self {
                    $(Row::$variant(row) => row.to_json(),)+
                }
            }

            /// Returns the name of the row's stream.
            pub fn stream(&self) -> &'static str {
                match self {
                    $(Row::$variant(_) => $stream::NAME,)+
                }
            }
        }
    };
}

// The order of the lines is the order of rows of different streams.
streams! {
    account_data::AccountDataRow as AccountData,
    caches::CachesRow as Caches,
    events::EventsRow as Events,
    presence::PresenceRow as Presence,
    receipts::ReceiptsRow as Receipts,
    to_device::ToDeviceRow as ToDevice,
    typing::TypingRow as Typing,
}
