//! Lines of bytes that arrive in pieces.

use squall_protocol::{LineDecoder, LineError};

/// Returns every whole line.
pub(crate) fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<String, LineError>> {
    let mut decoder = LineDecoder::default();
    let mut lines = Vec::new();
    for piece in pieces {
        decoder.extend(piece);
        lines.extend(std::iter::from_fn(|| decoder.next_line()));
    }
    lines
}
