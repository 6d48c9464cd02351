//! Every command, line and refusal in the vectors, in both directions. The counts are asserted, so that no vector is skipped
//! unnoticed.

use std::collections::BTreeSet;

use squall_protocol::{Command, Direction, ParseErrorKind};

use crate::vectors::{command_of, deviations, expected, fields_of, vectors};

/// Parses a line that must be refused.
fn refusal(line: &str) -> ParseErrorKind {
    let error = Command::parse(line).expect_err(line);
    let text = error.to_string();
    assert!(text.contains(&format!("{line:?}")), "the error does not name the line {line:?}: {text}");
    error.kind
}

#[test]
fn every_command_is_written_and_read_as_synapse_does() {
    let deviations = deviations();
    let (mut written, mut read, mut refused, mut deviating, mut not_representable) = (0, 0, 0, 0, 0);
    for vector in vectors().commands {
        let Some(wire) = vector.wire else {
            // The one command Synapse cannot build holds a NaN, which a `serde_json::Value` cannot hold either.
            assert!(vector.construct_error.is_some_and(|error| error.contains("Out of range float values")));
            assert_eq!(serde_json::Number::from_f64(f64::NAN), None);
            not_representable += 1;
            continue;
        };
        if let Some(reason) = deviations.get(&wire) {
            assert_eq!(command_of(&vector.command, &vector.fields), None, "needs no deviation: {wire}");
            let kind = refusal(&wire);
            assert!(reason.explains(&kind) || vector.reparse_error.is_some(), "{reason:?} is not {kind}: {wire}");
            deviating += 1;
            continue;
        }
        let command = command_of(&vector.command, &vector.fields).expect(&wire);
        assert_eq!(command.to_line().as_deref(), Ok(&*wire));
        written += 1;
        if vector.reparse_error.is_some() {
            refusal(&wire);
            refused += 1;
            continue;
        }
        let again = Command::parse(&wire).expect(&wire);
        assert_eq!(again.name(), vector.command);
        assert_eq!(fields_of(&again), expected(&vector.reparsed_fields.expect("read again")), "{wire}");
        assert_eq!(again.to_line().ok(), vector.roundtrip_wire, "{wire}");
        read += 1;
    }
    assert_eq!((written, read, refused, deviating, not_representable), (254, 204, 50, 17, 1));
}

#[test]
fn every_line_is_read_as_synapse_does() {
    let deviations = deviations();
    let (mut read, mut deviating) = (0, 0);
    for vector in vectors().parse {
        if let Some(reason) = deviations.get(&vector.line) {
            let kind = refusal(&vector.line);
            assert!(reason.explains(&kind), "{reason:?} is not {kind}: {}", vector.line);
            deviating += 1;
            continue;
        }
        let command = Command::parse(&vector.line).expect(&vector.line);
        assert_eq!(command.name(), vector.command);
        assert_eq!(fields_of(&command), expected(&vector.fields), "{}", vector.line);
        assert_eq!(command.to_line(), Ok(vector.wire_again), "{}", vector.line);
        read += 1;
    }
    assert_eq!((read, deviating), (64, 4));
}

#[test]
fn every_line_synapse_refuses_is_refused() {
    let vectors = vectors();
    for vector in &vectors.parse_errors {
        refusal(&vector.line);
    }
    assert_eq!(vectors.parse_errors.len(), 77);
}

#[test]
fn a_refusal_names_the_error() {
    type Check = fn(&ParseErrorKind) -> bool;
    let cases: [(&str, Check); 10] = [
        ("ping 1", |kind| matches!(kind, ParseErrorKind::UnknownCommand(name) if name == "ping")),
        ("RDATA events master 5", |kind| matches!(kind, ParseErrorKind::MissingArgument("row"))),
        ("FEDERATION_ACK f 5 6", |kind| matches!(kind, ParseErrorKind::TooManyArguments)),
        ("RDATA events master BATCH []", |kind| matches!(kind, ParseErrorKind::BadInteger { .. })),
        ("POSITION s w 5 9223372036854775808", |kind| matches!(kind, ParseErrorKind::IntegerOutOfRange { .. })),
        ("USER_SYNC i @a:x D START 5", |kind| matches!(kind, ParseErrorKind::BadState(state) if state == "START")),
        ("RDATA events master 5 [1e400]", |kind| matches!(kind, ParseErrorKind::Json(_))),
        ("USER_IP @u:x {}", |kind| matches!(kind, ParseErrorKind::WrongLength { expected: 5, found: 0 })),
        ("LOCK_RELEASED \"abcd\"", |kind| matches!(kind, ParseErrorKind::WrongLength { expected: 3, found: 4 })),
        ("LOCK_RELEASED 5", |kind| matches!(kind, ParseErrorKind::NotIterable { expected: 3 })),
    ];
    for (line, check) in cases {
        let kind = refusal(line);
        assert!(check(&kind), "{line}: {kind:?}");
    }
}

#[test]
fn every_listed_deviation_is_needed() {
    let vectors = vectors();
    let accepted: BTreeSet<String> = vectors
        .commands
        .into_iter()
        .filter_map(|built| built.wire)
        .chain(vectors.parse.into_iter().map(|p| p.line))
        .collect();
    let deviations = deviations();
    for line in deviations.keys() {
        assert!(accepted.contains(line), "Synapse does not accept it either: {line}");
        assert!(Command::parse(line).is_err(), "Squall accepts it too: {line}");
    }
    assert_eq!(deviations.len(), 21);
}

#[test]
fn commands_are_allowed_in_the_directions_of_synapse() {
    let vectors = vectors();
    let mut seen = BTreeSet::new();
    for parsed in &vectors.parse {
        let Ok(command) = Command::parse(&parsed.line) else { continue };
        let name = command.name().to_owned();
        let from_server = vectors.valid_server_commands.contains(&name);
        let from_client = vectors.valid_client_commands.contains(&name);
        assert_eq!(Direction::ServerToClient.allows(&command), from_server, "{name} from server to client");
        assert_eq!(Direction::ClientToServer.allows(&command), from_client, "{name} from client to server");
        assert!(Direction::Broadcast.allows(&command), "{name} over Redis");
        seen.insert(name);
    }
    assert_eq!(seen, vectors.command_map.into_iter().collect(), "every command was seen");
    assert_eq!((seen.len(), vectors.valid_server_commands.len(), vectors.valid_client_commands.len()), (15, 7, 10));
}
