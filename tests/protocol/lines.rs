//! Lines over TCP: their limit, and their decoding from pieces of any size.

use squall_protocol::{Command, EncodeError, LINE_BYTES_MAX, LineDecoder, LineError, encode_line};

/// Returns all lines of bytes that arrive in pieces of one size.
fn decode(bytes: &[u8], piece: usize) -> Vec<Result<String, LineError>> {
    let mut decoder = LineDecoder::default();
    let mut lines = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.extend(piece);
        lines.extend(std::iter::from_fn(|| decoder.next_line()));
    }
    lines
}

fn line(text: &str) -> Result<String, LineError> {
    Ok(text.to_owned())
}

/// Returns a command whose line has this length without its delimiter.
fn ping_of(bytes: usize) -> Command {
    Command::Ping("x".repeat(bytes - "PING ".len()))
}

#[test]
fn lines_arrive_in_pieces_of_any_size() {
    let bytes = "PING 1\nSERVER ünï🦀\nREPLICATE \nREPLICATE\nunfinished".as_bytes();
    for piece in 1..=bytes.len() {
        let lines = decode(bytes, piece);
        assert_eq!(lines, ["PING 1", "SERVER ünï🦀", "REPLICATE ", "REPLICATE"].map(line));
    }
}

#[test]
fn blank_lines_are_skipped() {
    assert_eq!(decode(b"\n\n \t\r\n\x0b\x0c\nPING 1\n\n", 3), [line("PING 1")]);
}

#[test]
fn a_carriage_return_stays_in_the_line() {
    assert_eq!(decode(b"PING 1\r\nPING 2\n", 4), [line("PING 1\r"), line("PING 2")]);
}

#[test]
fn the_longest_line_is_allowed_and_one_byte_more_is_not() {
    let longest = "é".repeat(LINE_BYTES_MAX / 2);
    assert_eq!(decode(format!("{longest}\nPING 1\n").as_bytes(), 1000), [line(&longest), line("PING 1")]);
    let longer = format!("{longest}x\nPING 1\n");
    for piece in [1, 1000, longer.len()] {
        assert_eq!(decode(longer.as_bytes(), piece), [Err(LineError::TooLong), line("PING 1")]);
    }
}

#[test]
fn a_line_too_long_is_refused_before_it_ends() {
    let mut decoder = LineDecoder::default();
    decoder.extend(&[b'x'; LINE_BYTES_MAX]);
    assert_eq!(decoder.next_line(), None);
    decoder.extend(b"x");
    assert_eq!(decoder.next_line(), Some(Err(LineError::TooLong)));
    // The rest of it is dropped, and it is reported once only.
    decoder.extend(&[b'x'; 3 * LINE_BYTES_MAX]);
    assert_eq!(decoder.next_line(), None);
    decoder.extend(b"x\nPING 1\n");
    assert_eq!(decoder.next_line(), Some(line("PING 1")));
}

#[test]
fn a_line_is_partial_from_its_first_byte_to_its_delimiter() {
    let mut decoder = LineDecoder::default();
    assert!(!decoder.is_partial());
    decoder.extend(b"PING");
    assert_eq!(decoder.next_line(), None);
    assert!(decoder.is_partial());
    decoder.extend(b" 1\n");
    assert_eq!((decoder.next_line(), decoder.next_line()), (Some(line("PING 1")), None));
    assert!(!decoder.is_partial());
    // Of a line that is too long too, though none of it is kept.
    decoder.extend(&[b'x'; LINE_BYTES_MAX + 1]);
    assert_eq!((decoder.next_line(), decoder.next_line()), (Some(Err(LineError::TooLong)), None));
    assert!(decoder.is_partial());
    decoder.extend(b"\n");
    assert_eq!(decoder.next_line(), None);
    assert!(!decoder.is_partial());
}

#[test]
fn a_line_that_is_not_utf8_is_refused_and_the_next_one_is_read() {
    assert_eq!(decode(b"PING \xff\nPING 1\n", 2), [Err(LineError::NotUtf8 { valid_up_to: 5 }), line("PING 1")]);
}

#[test]
fn a_command_is_sent_as_its_line_and_one_delimiter() {
    assert_eq!(encode_line(&Command::Replicate).as_deref(), Ok(b"REPLICATE \n".as_slice()));
}

#[test]
fn a_command_too_long_for_a_line_is_not_sent() {
    assert_eq!(encode_line(&ping_of(LINE_BYTES_MAX)).map(|bytes| bytes.len()), Ok(LINE_BYTES_MAX + 1));
    let bytes = LINE_BYTES_MAX + 1;
    assert_eq!(encode_line(&ping_of(bytes)), Err(EncodeError::TooLong { command: "PING", bytes }));
    // Over Redis it may be.
    assert_eq!(ping_of(bytes).to_line().map(|line| line.len()), Ok(bytes));
}

#[test]
fn a_command_that_would_break_the_line_is_not_sent() {
    let error = encode_line(&Command::Name("a\nREPLICATE".into())).expect_err("a line break");
    assert!(matches!(error, EncodeError::LineBreak(_)));
    assert_eq!(error.to_string(), "NAME holds a line break");
}
