//! The rows of every stream of both versions, against the rows that Synapse's own classes accept and refuse.

use std::collections::BTreeSet;

use serde_json::Value;
use squall::streams;
use squall_protocol::rows::{self, Row, RowError, v1_19};

use crate::vectors::{RowVectors, of_rows, of_rows_1_19};

/// Parses a row and writes it again.
type Parse = fn(&str, Value) -> Result<Value, RowError>;

/// A version: its vectors, its streams and the parser of its rows.
fn versions() -> [(RowVectors, &'static [&'static str], Parse); 2] {
    let parse: Parse = |stream, row| Row::parse(&stream.into(), row).map(|row| row.to_json());
    let parse_1_19: Parse = |stream, row| v1_19::Row::parse(&stream.into(), row).map(|row| row.to_json());
    [(of_rows(), &rows::NAMES, parse), (of_rows_1_19(), &v1_19::NAMES, parse_1_19)]
}

#[test]
fn no_stream_of_either_version_is_left_out() {
    for ((vectors, names, _), count) in versions().into_iter().zip([19, 16]) {
        let streams: BTreeSet<&str> = vectors.streams.iter().map(|stream| &*stream.name).collect();
        assert_eq!((names.len(), streams), (count, names.iter().copied().collect()));
        let with_rows: BTreeSet<&str> = vectors.rows.iter().map(|row| &*row.stream).collect();
        assert_eq!(with_rows, names.iter().copied().collect());
    }
}

#[test]
fn every_row_that_synapse_accepts_is_parsed_and_rendered_alike() {
    for ((vectors, _, parse), count) in versions().into_iter().zip([43, 31]) {
        assert_eq!(vectors.rows.len(), count);
        for given in vectors.rows {
            assert_eq!(parse(&given.stream, given.row.clone()), Ok(given.row));
        }
    }
}

#[test]
fn every_row_that_synapse_refuses_is_refused() {
    for ((vectors, _, parse), count) in versions().into_iter().zip([36, 35]) {
        assert_eq!(vectors.row_errors.len(), count);
        for given in vectors.row_errors {
            let refused = parse(&given.stream, given.row.clone());
            assert!(matches!(refused, Err(RowError::Shape { .. })), "{}: {refused:?}", given.row);
        }
    }
}

#[test]
fn the_document_has_every_stream_and_names_those_of_the_stack() {
    let document = include_str!("../../docs/streams.md");
    for name in rows::NAMES {
        let lines: Vec<_> = document.lines().filter(|line| line.starts_with(&format!("| `{name}` | "))).collect();
        let is_served = lines[0].split(" | ").nth(5).is_some_and(|cell| cell.starts_with("serves it"));
        assert_eq!(is_served, streams::names().any(|served| served == name), "{name}");
    }
    for name in v1_19::NAMES {
        assert!(document.contains(&format!("| `{name}` | ")), "{name}");
    }
}

#[test]
fn a_row_of_an_unknown_stream_is_refused() {
    for (_, _, parse) in versions() {
        let refused = parse("nonesuch", Value::Null);
        assert!(matches!(refused, Err(RowError::UnknownStream(name)) if name.as_str() == "nonesuch"));
    }
}
