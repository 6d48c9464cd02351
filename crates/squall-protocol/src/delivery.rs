//! The guarantee that a stream gives its followers.

/// The guarantee of a stream to its followers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Every committed row, once per follower boot, in order, whole tokens at a time.
    Log,
    /// For each key the last row up to the position. Each stream says what its key is. Rows that were replaced or
    /// removed before the follower fetched them may be missing.
    Keyed,
    /// For each key the last row up to the position, within one run of the writer. Every token names its run
    /// ([`Token::run`](super::Token::run)). Synapse's writers number from 1 at every start; with them, a position that goes
    /// back or a new connection indicates another run.
    Memory,
}
