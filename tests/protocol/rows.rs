//! The rows of Squall's streams, against the rows that Synapse's own classes accept.

use serde_json::Value;
use squall_protocol::StreamName;
use squall_protocol::rows::{NAMES, Row, RowError};

use crate::vectors::vectors;

#[test]
fn every_row_that_synapse_accepts_is_parsed_and_rendered_alike() {
    let known: Vec<_> = vectors().rows.into_iter().filter(|row| NAMES.contains(&row.stream.as_str())).collect();
    assert_eq!(known.len(), 18);
    for given in known {
        let row = Row::parse(&StreamName::from(given.stream), given.row.clone()).unwrap();
        assert_eq!(row.to_json(), given.row);
    }
}

#[test]
fn every_row_that_synapse_refuses_is_refused() {
    let known: Vec<_> = vectors().row_errors.into_iter().filter(|row| NAMES.contains(&row.stream.as_str())).collect();
    assert_eq!(known.len(), 21);
    for given in known {
        let refused = Row::parse(&StreamName::from(given.stream), given.row.clone());
        assert!(matches!(refused, Err(RowError::Shape { .. })), "{}", given.row);
    }
}

#[test]
fn a_row_of_an_unknown_stream_is_refused() {
    let refused = Row::parse(&"nonesuch".into(), Value::Null);
    assert!(matches!(refused, Err(RowError::UnknownStream(name)) if name.as_str() == "nonesuch"));
}
