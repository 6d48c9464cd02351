//! The text of tokens, and their order.

use std::collections::BTreeMap;

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::{InstanceId, InstanceName};

fn instances() -> InstanceMap {
    (1..=4).map(|id| (InstanceName::from(format!("writer{id}")), InstanceId(id))).collect()
}

fn vector(min: i64, ahead: &[(&str, i64)]) -> VectorPosition {
    VectorPosition::new(Token(min), ahead.iter().map(|(writer, token)| ((*writer).into(), Token(*token))).collect())
}

fn parse(text: &str) -> SyncToken {
    SyncToken::parse(text, &instances()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn problem(text: &str) -> String {
    SyncToken::parse(text, &instances()).expect_err(text).to_string()
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![0..50i64, 0..=i64::MAX]
}

fn any_vector() -> impl Strategy<Value = VectorPosition> {
    (number(), btree_map(1..=4u8, number(), 0..4)).prop_map(|(min, ahead)| {
        let ahead = ahead.into_iter().map(|(id, token)| (format!("writer{id}").into(), Token(token)));
        VectorPosition::new(Token(min), ahead.collect())
    })
}

fn any_token() -> impl Strategy<Value = SyncToken> {
    let others = proptest::collection::vec("[0-9a-z.~-]{1,8}", 4..8);
    (any_vector(), any_vector(), [number(), number(), number(), number()], others).prop_map(
        |(events, receipts, [presence, typing, account_data, to_device], others)| SyncToken {
            events,
            receipts,
            presence: Token(presence),
            typing: TypingPosition::from_number(typing),
            account_data: Token(account_data),
            to_device: Token(to_device),
            others: Others { parts: others.into_iter().map(Box::from).collect() },
        },
    )
}

proptest! {
    #[test]
    fn a_rendered_token_parses_to_itself(token in any_token()) {
        let text = token.render(&instances());
        prop_assert_eq!(SyncToken::parse(&text, &instances()), Ok(token));
    }

    #[test]
    fn merging_is_the_least_upper_bound(a in any_token(), b in any_token(), c in any_token()) {
        let merged = a.merge(&b);
        prop_assert!(a.is_within(&merged) && b.is_within(&merged));
        prop_assert_eq!(&merged.others, &a.others);
        if a.is_within(&c) && b.is_within(&c) {
            prop_assert!(merged.is_within(&c));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[smt0-9._~-]{0,40}|.{0,40}") {
        if let Ok(token) = SyncToken::parse(&text, &instances()) {
            prop_assert_eq!(SyncToken::parse(&token.render(&instances()), &instances()), Ok(token));
        }
    }
}

#[test]
fn a_token_of_synapse_is_parsed_part_by_part() {
    let token = parse("m56~2.58~3.59_7_8_m9~1.12_10_11_12_m13~1.14_15_16_17");
    assert_eq!(token.events, vector(56, &[("writer2", 58), ("writer3", 59)]));
    assert_eq!(token.receipts, vector(9, &[("writer1", 12)]));
    assert_eq!((token.presence, token.account_data, token.to_device), (Token(7), Token(10), Token(12)));
    assert_eq!(token.typing, TypingPosition::from_number(8));
    let rest: Vec<&str> = token.others.parts.iter().map(|part| &**part).collect();
    assert_eq!(rest, ["11", "m13~1.14", "15", "16", "17"]);
    assert_eq!(token.render(&instances()), "m56~2.58~3.59_7_8_m9~1.12_10_11_12_m13~1.14_15_16_17");
}

#[test]
fn a_position_that_is_the_same_for_all_writers_has_the_short_form() {
    let token = SyncToken { events: vector(5, &[("writer1", 5)]), ..parse("s0_0_0_0_0_0_0_0_0_0") };
    assert_eq!(token.render(&instances()), "s5_0_0_0_0_0_0_0_0_0");
}

#[test]
fn the_form_that_an_old_bug_wrote_is_parsed() {
    assert_eq!(parse("m5~_0_0_m7~_0").events, vector(5, &[]));
    assert_eq!(parse("m5~_0_0_m7~_0").receipts, vector(7, &[]));
    assert_eq!(parse("m5").events, vector(5, &[]));
}

#[test]
fn parts_that_later_versions_added_are_zero_in_an_older_token() {
    let token = parse("s5_1_2_3");
    assert_eq!((token.receipts.clone(), token.to_device), (vector(3, &[]), Token(0)));
    assert_eq!(token.render(&instances()), "s5_1_2_3_0_0_0_0_0_0");
}

#[test]
fn an_error_names_the_part_that_is_wrong() {
    let cases = [
        ("", "the room part is \"\", and it begins neither with a digit nor"),
        ("5_0", "the room part is \"5\""),
        ("s-5_0", "\"-5\" is not a number"),
        ("s5_x", "the presence part is \"x\""),
        ("s5_0_0_s5", "the receipts part is \"s5\", and it begins neither with a digit nor"),
        ("s5_0_0_0_99999999999999999999", "the account data part"),
        ("m5~9.7", "no instance has the number 9"),
        ("m5~1.7~1.8", "writer 1 has two positions"),
        ("m5~17", "\"17\" is not a writer's number and its position"),
        ("s5_0_0_0_0_0_0_!", "it has the part \"!\""),
        ("s5_0_0_0_0_0_0_0_0_0_", "it has the part \"\""),
        ("é5", "the room part"),
    ];
    for (text, expected) in cases {
        let problem = problem(text);
        assert!(problem.starts_with("not a sync token: ") && problem.contains(expected), "{text}: {problem}");
    }
    assert!(problem(&format!("s{}", "9".repeat(10_000))).len() < 300);
}

#[test]
fn a_place_in_a_rooms_history_is_parsed_and_is_no_sync_token() {
    let place = RoomPosition::parse("t47-56", &instances()).unwrap();
    assert_eq!(place, RoomPosition::Historical { depth: 47, stream: Token(56) });
    assert_eq!(place.render(&instances()), "t47-56");
    assert!(problem("t47-56_0").contains("\"t47-56\" is a place in a room's history"));
    assert!(RoomPosition::parse("t47", &instances()).is_err());
}

#[test]
fn a_token_within_another_is_so_for_every_writer() {
    let (a, b) = (parse("m5~1.9_3"), parse("m5~2.9_3"));
    assert!(!a.is_within(&b) && !b.is_within(&a));
    assert!(a.is_within(&parse("m6~1.9_3")) && !a.is_within(&parse("m6~1.9_2")));
    assert!(parse("s5_3_700").is_within(&a), "typing has no order");
    let bounded = vector(5, &[("writer1", 9)]).bounded(Token(7));
    assert_eq!(bounded, vector(5, &[("writer1", 7)]));
    assert_eq!(vector(5, &[("writer1", 9)]).bounded(Token(4)), VectorPosition::new(Token(4), BTreeMap::new()));
}
