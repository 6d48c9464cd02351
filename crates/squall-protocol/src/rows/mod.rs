//! Rows: the payload of an `RDATA` line, one type per stream.
//!
//! One line in the list below registers a stream.

mod error;
mod json;
mod updates;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::json::Checked;
use crate::names::StreamName;

pub use error::RowError;
pub use json::Json;
pub use updates::{ROWS_TARGET, Updates};

/// Declares the module of each stream's rows, [`Row`] and [`NAMES`].
///
/// A module has the stream's `NAME` and its row type, which has `parse` and `write`.
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

            /// Parses the text of a row of `stream`, without the detour of a [`Value`]. Returns the row, and about how many bytes
            /// of memory it takes. Returns none if that fails: then [`json::parse`](crate::json::parse) and
            /// [`parse`](Self::parse) find out why.
            pub fn read(stream: &str, text: &str) -> Option<(Row, usize)> {
                let checked = Checked::new(text).ok()?;
                let mut reading = serde_json::Deserializer::from_str(&checked.text);
                let row = match stream {
                    $($stream::NAME => $stream::$row::parse(&mut reading).map(Row::$variant),)+
                    _ => return None,
                };
                reading.end().and(row).ok().map(|row| (row, checked.held_bytes()))
            }

            /// Returns the name of the row's stream.
            pub fn stream(&self) -> &'static str {
                match self {
                    $(Row::$variant(_) => $stream::NAME,)+
                }
            }
        }

        impl Serialize for Row {
            /// Writes the row as it is on the wire.
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Row::$variant(row) => row.write(to),)+
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

impl Row {
    /// Returns the row as it is on the wire.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a row has string keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_text_is_read_like_its_value_and_written_like_it() {
        let event = r#"["ev",["$a","!r","m.é\ud83e\udd80\"",null,"$b",null,"join",false,true]]"#;
        let cases = [
            ("events", event, true),
            ("events", r#" [ "state" , [ "!r" , "k" , "" , null ] ] "#, true),
            ("events", r#"["state-all",["!r"]]"#, true),
            ("events", r#"["\u0065v",["$a","!r","k",null,null,null,null,false,false]]"#, true),
            ("events", r#"["ev",["$a","!r","k",null,null,null,null,false,false,1]]"#, false),
            ("events", r#"["ev",["$a","!r","k",null,null,null,null,0,0]]"#, false),
            ("events", r#"[{"state-all":null},["!r"]]"#, false),
            ("events", r#"["state-all",["!r"],1]"#, false),
            ("events", r#"["state-all"]"#, false),
            ("events", r#"["state-all",["!r"]] x"#, false),
            ("events", r#"["newer",["!r"]]"#, false),
            ("presence", r#"["@a","online",-0,9223372036854775807,1,null,true]"#, true),
            ("presence", r#"["@a","online",1,9223372036854775808,1,null,true]"#, false),
            ("presence", r#"["@a","online",1.0,2,3,null,true]"#, false),
            (
                "receipts",
                r#"["!r","m.read","@a","$e",null,{"a":[-0,1e2],"a":{"b":-0.0},"c":18446744073709551615}]"#,
                true,
            ),
            ("receipts", r#"["!r","m.read","@a","$e",null,{"a":18446744073709551616}]"#, false),
            ("receipts", r#"["!r","m.read","@a","$e",null,[]]"#, false),
            ("caches", r#"["cache",["a",-0,{"b":[]}],null]"#, true),
            ("caches", r#"["cache",null,5]"#, true),
            ("typing", r#"["!r",["@a","@b"]]"#, true),
            ("account_data", r#"["@a",null,"m.tag"]"#, true),
            ("to_device", r#"["@a"]"#, true),
            ("pushers", r#"["@a"]"#, false),
        ];
        for (stream, text, is_row) in cases {
            let read = Row::read(stream, text).map(|(row, _)| row);
            let parsed = json::parse(text).ok().and_then(|value| Row::parse(&stream.into(), value).ok());
            // What only the detour can read may be left to it.
            assert!(read.is_none() || read == parsed, "{text}");
            assert_eq!(parsed.is_some(), is_row, "{text}");
            if let Some(row) = parsed {
                let mut written = Vec::new();
                json::write(&row, &mut written);
                assert_eq!(String::from_utf8(written).unwrap(), json::render(&row.to_json()));
            }
        }
        assert!(Row::read("events", event).is_some());
    }
}
