//! Rows: the payload of an `RDATA` line, one type per stream of Synapse 1.163.
//!
//! One line in the list below registers a stream. An instance follows some of them: `docs/streams.md` has a table. As in
//! Synapse, a row has exactly the fields of its stream. Here each must also have its type.

mod error;
mod json;
mod updates;

use crate::json::Checked;

pub use error::RowError;
pub use json::Json;
pub use updates::{ROWS_TARGET, Updates};

/// Declares [`Row`] and [`NAMES`] for the streams of one version.
///
/// Each is a module with the stream's `NAME` and its row type, which has `parse` and `write`.
macro_rules! rows {
    ($($stream:ident::$row:ident as $variant:ident,)+) => {
        /// The names of all streams of this version.
        pub const NAMES: [&str; [$($stream::NAME),+].len()] = [$($stream::NAME),+];

        /// A row of any stream of this version.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Row {
            $(#[doc = concat!("A row of `", stringify!($stream), "`.")] $variant($stream::$row),)+
        }

        impl Row {
            /// Parses a row of `stream`, as in `RDATA` or in an answer to `get_repl_stream_updates`.
            ///
            /// # Errors
            /// The stream is unknown, or the row does not have the shape of the stream's rows.
            pub fn parse(
                stream: &$crate::StreamName,
                row: serde_json::Value,
            ) -> Result<Row, $crate::rows::RowError> {
                let parsed = match stream.as_str() {
                    $($stream::NAME => $stream::$row::parse(&row).map(Row::$variant),)+
                    _ => return Err($crate::rows::RowError::UnknownStream(stream.clone())),
                };
                parsed.map_err(|cause| $crate::rows::RowError::shape(stream, cause, &row))
            }

            /// Returns the name of the row's stream.
            pub fn stream(&self) -> &'static str {
                match self {
                    $(Row::$variant(_) => $stream::NAME,)+
                }
            }

            /// Returns the row as it is on the wire.
            pub fn to_json(&self) -> serde_json::Value {
                serde_json::to_value(self).expect("a row has string keys")
            }
        }

        impl serde::Serialize for Row {
            /// Writes the row as it is on the wire.
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Row::$variant(row) => row.write(to),)+
                }
            }
        }
    };
}

/// Declares the module of each stream's rows, [`Row`] and [`NAMES`].
macro_rules! streams {
    ($($stream:ident::$row:ident as $variant:ident,)+) => {
        $(
            pub mod $stream;
            pub use $stream::$row;
        )+

        rows! { $($stream::$row as $variant,)+ }

        impl Row {
            /// Parses the text of a row of `stream`, without the detour of a [`Value`](serde_json::Value). Returns the
            /// row, and about how many bytes of memory it takes. Returns none if that fails: then
            /// [`json::parse`](crate::json::parse) and [`parse`](Self::parse) find out why.
            pub fn read(stream: &str, text: &str) -> Option<(Row, usize)> {
                let checked = Checked::new(text).ok()?;
                let mut reading = serde_json::Deserializer::from_str(&checked.text);
                let row = match stream {
                    $($stream::NAME => $stream::$row::parse(&mut reading).map(Row::$variant),)+
                    _ => return None,
                };
                reading.end().and(row).ok().map(|row| (row, checked.held_bytes()))
            }
        }
    };
}

// The order of the lines is the order of rows of different streams. Traces depend on it: a new line is the last one.
streams! {
    account_data::AccountDataRow as AccountData,
    caches::CachesRow as Caches,
    events::EventsRow as Events,
    presence::PresenceRow as Presence,
    receipts::ReceiptsRow as Receipts,
    to_device::ToDeviceRow as ToDevice,
    typing::TypingRow as Typing,
    backfill::BackfillRow as Backfill,
    device_lists::DeviceListsRow as DeviceLists,
    federation::FederationRow as Federation,
    presence_federation::PresenceFederationRow as PresenceFederation,
    profile_updates::ProfileUpdatesRow as ProfileUpdates,
    push_rules::PushRulesRow as PushRules,
    pushers::PushersRow as Pushers,
    quarantined_media::QuarantinedMediaRow as QuarantinedMedia,
    sticky_events::StickyEventsRow as StickyEvents,
    thread_subscriptions::ThreadSubscriptionsRow as ThreadSubscriptions,
    un_partial_stated_event::UnPartialStatedEventRow as UnPartialStatedEvent,
    un_partial_stated_room::UnPartialStatedRoomRow as UnPartialStatedRoom,
}

// Below the macro that it uses.
pub mod v1_19;

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
            ("pushers", r#"["@a","app","key",true]"#, true),
            ("pushers", r#"["@a"]"#, false),
            ("federation", r#"["k",{"key":["a"],"edu":{}}]"#, true),
            ("groups", r#"["+g","@a","membership",{}]"#, false),
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
