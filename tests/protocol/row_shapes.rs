//! The shape of every stream's rows, of both versions, and properties of any row that has it or does not.
//!
//! The shapes are written down here a second time, one letter a field, so that a field that is swapped or left out in a
//! row type is found: `s` text, `b` a boolean, `i` an integer, `o` an object, `l` a list of texts, `v` a list of any JSON,
//! `j` any JSON. A capital letter: or null.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use squall_protocol::rows::{Row, RowError, v1_19};
use squall_protocol::{Dialect, json as python};

use crate::properties::{string, value};

/// The shapes of Synapse 1.163. A tag stands before the fields of its shape.
const SHAPES: [(&str, &str, &str); 21] = [
    ("account_data", "", "sSs"),
    ("backfill", "", "sssSSS"),
    ("caches", "", "sVI"),
    ("device_lists", "", "sbb"),
    ("events", "ev", "sssSSSSbb"),
    ("events", "state", "sssS"),
    ("events", "state-all", "s"),
    ("federation", "", "so"),
    ("presence", "", "ssiiiSb"),
    ("presence_federation", "", "ss"),
    ("profile_updates", "", "ssL"),
    ("push_rules", "", "s"),
    ("pushers", "", "sssb"),
    ("quarantined_media", "", "Ssb"),
    ("receipts", "", "ssssSo"),
    ("sticky_events", "", "ss"),
    ("thread_subscriptions", "", "sss"),
    ("to_device", "", "s"),
    ("typing", "", "sl"),
    ("un_partial_stated_event", "", "sb"),
    ("un_partial_stated_room", "", "s"),
];

/// The shapes of Synapse 1.19.
const SHAPES_1_19: [(&str, &str, &str); 17] = [
    ("account_data", "", "sSs"),
    ("backfill", "", "sssSSS"),
    ("caches", "", "sVI"),
    ("device_lists", "", "s"),
    ("events", "ev", "sssSSS"),
    ("events", "state", "sssS"),
    ("federation", "", "so"),
    ("groups", "", "ssso"),
    ("presence", "", "ssiiiSb"),
    ("public_rooms", "", "ssSS"),
    ("push_rules", "", "s"),
    ("pushers", "", "sssb"),
    ("receipts", "", "sssso"),
    ("tag_account_data", "", "ssj"),
    ("to_device", "", "s"),
    ("typing", "", "sl"),
    ("user_signature", "", "s"),
];

/// A stream, a tag and the fields behind it.
#[derive(Debug, Clone)]
struct Sample {
    dialect: Dialect,
    stream: &'static str,
    tag: &'static str,
    fields: Vec<Value>,
}

impl Sample {
    /// Returns the row as it is on the wire.
    fn row(&self) -> Value {
        let fields = Value::from(self.fields.clone());
        if self.tag.is_empty() { fields } else { json!([self.tag, fields]) }
    }

    fn parse(&self, row: Value) -> Result<Value, RowError> {
        match self.dialect {
            Dialect::V1_163 => Row::parse(&self.stream.into(), row).map(|row| row.to_json()),
            Dialect::V1_19 => v1_19::Row::parse(&self.stream.into(), row).map(|row| row.to_json()),
        }
    }

    /// Fails unless `row` is refused, with the stream's name and in few words.
    fn check_refused(&self, row: Value) -> Result<(), TestCaseError> {
        let text = row.to_string();
        match self.parse(row) {
            Err(error @ RowError::Shape { .. }) => {
                let error = error.to_string();
                prop_assert!(error.starts_with(&format!("not a row of {}: ", self.stream)), "{}", error);
                prop_assert!(error.chars().count() < 600, "{}", error);
                Ok(())
            }
            other => Err(TestCaseError::fail(format!("{} is a row of {}: {other:?}", text, self.stream))),
        }
    }
}

/// Any JSON that a field of this letter holds.
fn field(letter: char) -> BoxedStrategy<Value> {
    let texts = || vec(string(), 0..4).prop_map(Value::from);
    match letter {
        's' => string().prop_map(Value::from).boxed(),
        'b' => any::<bool>().prop_map(Value::from).boxed(),
        'i' => any::<i64>().prop_map(Value::from).boxed(),
        'o' => vec((string(), value()), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())).boxed(),
        'l' => texts().boxed(),
        'v' => vec(value(), 0..4).prop_map(Value::from).boxed(),
        'j' => value().boxed(),
        nullable => prop_oneof![1 => Just(Value::Null), 3 => field(nullable.to_ascii_lowercase())].boxed(),
    }
}

/// Any row of any stream.
fn sample() -> impl Strategy<Value = Sample> {
    let of = |dialect: Dialect, (stream, tag, letters): (&'static str, &'static str, &'static str)| {
        let fields: Vec<_> = letters.chars().map(field).collect();
        fields.prop_map(move |fields| Sample { dialect, stream, tag, fields })
    };
    prop_oneof![
        select(&SHAPES[..]).prop_flat_map(move |shape| of(Dialect::V1_163, shape)),
        select(&SHAPES_1_19[..]).prop_flat_map(move |shape| of(Dialect::V1_19, shape)),
    ]
}

/// A value that no field holds but one of any JSON.
fn misfit() -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!(0.5)), Just(json!(u64::MAX)), Just(json!([[0.5]])), Just(json!("x".repeat(10_000)))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_row_is_written_as_it_was_read(sample in sample()) {
        let row = sample.row();
        let written = sample.parse(row.clone());
        prop_assert_eq!(written.as_ref(), Ok(&row));
        if sample.dialect == Dialect::V1_163 {
            let (read, _) = Row::read(sample.stream, &python::render(&row)).expect("its text is read without a detour");
            prop_assert_eq!(Ok(read), Row::parse(&sample.stream.into(), row));
        }
    }

    #[test]
    fn a_row_with_a_field_too_many_or_too_few_is_refused(sample in sample(), more in value(), at in any::<Index>()) {
        let mut longer = sample.clone();
        longer.fields.insert(at.index(sample.fields.len() + 1), more);
        sample.check_refused(longer.row())?;
        let mut shorter = sample.clone();
        shorter.fields.remove(at.index(sample.fields.len()));
        sample.check_refused(shorter.row())?;
    }

    #[test]
    fn a_row_with_a_field_of_another_type_is_refused(sample in sample(), other in misfit(), at in any::<Index>()) {
        let at = at.index(sample.fields.len());
        let is_text = sample.fields[at].is_string() || sample.fields[at].is_null();
        let holds_any = sample.stream == "tag_account_data" || sample.stream == "caches";
        prop_assume!(!(holds_any || is_text && other.is_string()));
        let mut wrong = sample.clone();
        wrong.fields[at] = other;
        sample.check_refused(wrong.row())?;
    }

    #[test]
    fn a_row_that_is_no_list_is_refused(sample in sample(), other in value()) {
        prop_assume!(!other.is_array());
        sample.check_refused(other)?;
    }
}

#[test]
fn every_stream_has_a_shape() {
    let streams = |shapes: &[(&'static str, &str, &str)]| {
        let mut streams: Vec<_> = shapes.iter().map(|(stream, ..)| *stream).collect();
        streams.dedup();
        streams
    };
    let sorted = |dialect: Dialect| {
        let mut names = dialect.streams().to_vec();
        names.sort_unstable();
        names
    };
    assert_eq!(streams(&SHAPES), sorted(Dialect::V1_163));
    assert_eq!(streams(&SHAPES_1_19), sorted(Dialect::V1_19));
}
