//! Properties for any input: a rendered command parses to itself, nothing panics, and the pieces of the input do not matter.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};
use squall_protocol::{
    Command, FederationAck, Header, LockReleased, Position, Rdata, Token, UserIp, UserSync, encode_line, json,
};

use crate::pieces::decode;

/// Any text, line breaks and control characters included, as JSON may hold it.
pub(crate) fn string() -> impl Strategy<Value = String> {
    "(?s).{0,12}"
}

/// Text that is allowed anywhere in a line, spaces included.
fn text() -> impl Strategy<Value = String> {
    "[^\n]{0,20}"
}

/// An argument that ends at a space.
fn word() -> impl Strategy<Value = String> {
    "[^\n ]{0,10}"
}

fn token() -> impl Strategy<Value = Token> {
    any::<i64>().prop_map(Token)
}

fn finite() -> impl Strategy<Value = f64> {
    // By bits, so that subnormals and every exponent are as likely as ordinary numbers.
    any::<u64>().prop_map(f64::from_bits).prop_filter("JSON has no NaN and no infinity", |value| value.is_finite())
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        finite().prop_map(Value::from),
        string().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((string(), inner), 0..6).prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn structured() -> impl Strategy<Value = Command> {
    let position = (word(), word(), token(), token()).prop_map(|(stream, writer, prev, new)| {
        Command::Position(Position { stream: stream.into(), writer: writer.into(), prev, new })
    });
    let rdata = (word(), word(), option::of(token()), value()).prop_map(|(stream, writer, token, row)| {
        Command::Rdata(Rdata { stream: stream.into(), writer: writer.into(), token, row })
    });
    let device = option::of(word().prop_filter("`None` stands for no device", |device| device != "None"));
    let user_sync = (word(), word(), device, any::<bool>(), any::<i64>()).prop_map(
        |(instance_id, user_id, device_id, is_syncing, last_sync_ms)| {
            Command::UserSync(UserSync { instance_id, user_id, device_id, is_syncing, last_sync_ms })
        },
    );
    let federation_ack = (word(), token())
        .prop_map(|(instance, token)| Command::FederationAck(FederationAck { instance: instance.into(), token }));
    let user_ip = (word(), value(), value(), value(), value(), value()).prop_map(
        |(user_id, access_token, ip, user_agent, device_id, last_seen)| {
            Command::UserIp(UserIp { user_id, access_token, ip, user_agent, device_id, last_seen })
        },
    );
    let lock_released = (value(), value(), value()).prop_map(|(instance_name, lock_name, lock_key)| {
        Command::LockReleased(LockReleased { instance_name, lock_name, lock_key })
    });
    prop_oneof![position, rdata, user_sync, federation_ack, user_ip, lock_released]
}

/// Any command whose fields the grammar can carry.
fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => structured(),
        1 => Just(Command::Replicate),
        1 => text().prop_map(Command::Server),
        1 => text().prop_map(Command::Name),
        1 => text().prop_map(Command::Ping),
        1 => text().prop_map(Command::Error),
        1 => text().prop_map(Command::ClearUserSync),
        1 => text().prop_map(Command::RemoteServerUp),
        1 => text().prop_map(Command::NewActiveTask),
        1 => text().prop_map(Command::CancelTask),
    ]
}

/// The tokens of JSON texts, valid and invalid.
fn json_token() -> impl Strategy<Value = &'static str> {
    const TOKENS: &[&str] = &["-0", "-", "0", "1", ".5", "e", "E+", "true", "null", "[", "]", "{", "}", ",", ":", " "];
    const STRINGS: &[&str] = &["\"", "\\", "\"-0\"", "\"\\\"", "\"a\":"];
    prop_oneof![proptest::sample::select(TOKENS), proptest::sample::select(STRINGS)]
}

/// Bytes with more line ends, blank lines, unfinished lines and long lines than random bytes have.
fn received() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(b"\n".to_vec()),
        2 => vec(any::<u8>(), 0..40),
        2 => text().prop_map(String::into_bytes),
        1 => Just(b" \r".to_vec()),
        1 => (16_300..16_500_usize).prop_map(|length| vec![b'x'; length]),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn a_command_written_is_the_command_read(command in command()) {
        let line = command.to_line().unwrap();
        prop_assert_eq!(Command::parse(&line).unwrap(), command);
    }

    #[test]
    fn a_command_sent_is_the_command_received(commands in vec(command(), 0..5)) {
        let mut bytes = Vec::new();
        for command in &commands {
            match encode_line(command) {
                Ok(line) => bytes.extend(line),
                Err(error) => return Err(TestCaseError::reject(error.to_string())),
            }
        }
        let received: Vec<Command> =
            decode([&*bytes]).into_iter().map(|line| Command::parse(&line.unwrap()).unwrap()).collect();
        prop_assert_eq!(received, commands);
    }

    #[test]
    fn any_text_parses_or_is_refused(line in "(?s).{0,60}") {
        let _ = Command::parse(&line);
    }

    #[test]
    fn a_parsed_command_renders_stably(name in "(RDATA|POSITION|USER_SYNC|FEDERATION_ACK|USER_IP|LOCK_RELEASED)",
                             arguments in r#"([-+0-9 batchstrend]{0,6} ?){0,5}[\[\]{}",:\\u0-9.eE-]{0,12}"#) {
        if let Ok(command) = Command::parse(&format!("{name} {arguments}")) {
            let line = command.to_line().unwrap();
            prop_assert_eq!(Command::parse(&line).unwrap().to_line().unwrap(), line);
        }
    }

    #[test]
    fn the_header_agrees_with_the_command(command in command()) {
        let line = command.to_line().unwrap();
        match (Header::peek(&line).unwrap(), command) {
            (Header::Rdata(header), Command::Rdata(rdata)) => {
                prop_assert_eq!(header.stream, rdata.stream.as_str());
                prop_assert_eq!(header.writer, rdata.writer.as_str());
                prop_assert_eq!(header.token, rdata.token);
                prop_assert_eq!(json::parse(header.row).unwrap(), rdata.row);
            }
            (Header::Position(header), Command::Position(position)) => prop_assert_eq!(header, position),
            (Header::Other { name }, command) => {
                prop_assert!(!matches!(command, Command::Rdata(_) | Command::Position(_)));
                prop_assert_eq!(name, command.name());
            }
            (header, command) => prop_assert!(false, "{:?} is not the header of {:?}", header, command),
        }
    }

    #[test]
    fn the_pieces_of_the_input_do_not_matter(bytes in received(), sizes in vec(1..9_000_usize, 1..8)) {
        let mut rest = &*bytes;
        let pieces = sizes.iter().cycle().map_while(|size| {
            let (piece, after) = rest.split_at(rest.len().min(*size));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(decode(pieces), decode([&*bytes]));
    }

    #[test]
    fn a_float_reads_back_as_itself(value in finite()) {
        let text = json::render(&Value::from(value));
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
        prop_assert_eq!(json::parse(&text).unwrap().as_f64().unwrap().to_bits(), value.to_bits());
    }

    #[test]
    fn json_is_one_line_of_printable_ascii(value in value()) {
        prop_assert!(json::render(&value).bytes().all(|byte| matches!(byte, b' '..=b'~')));
    }

    #[test]
    fn json_is_accepted_like_by_serde_json_but_for_its_integers(tokens in vec(json_token(), 0..12)) {
        // Twelve of these tokens make no integer outside 64 bits, the one thing `serde_json` alone would let pass.
        let text = tokens.concat();
        prop_assert_eq!(json::parse(&text).is_ok(), serde_json::from_str::<Value>(&text).is_ok());
    }
}
