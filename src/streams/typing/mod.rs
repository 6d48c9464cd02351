//! `typing`: the users who are typing in each room.
//!
//! One instance holds it in memory. It numbers its changes anew at each start, above all earlier numbers
//! ([`Token::beginning_of`](squall_protocol::Token::beginning_of)). A row holds all users who are typing in a room, so
//! only the newest row of each room matters, and older ones are not kept. Followers fetch missed rows from the writer by
//! HTTP.

mod handler;
mod stream;

pub use handler::TypingHandler;
pub use stream::TypingStream;
