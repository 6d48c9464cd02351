//! What has not arrived yet.
//!
//! While the storm rages this is nothing unusual. Once it is over everything must converge within the calm bound; what
//! is pending then says what is stuck, and on whom.

use std::fmt;

use serde::Serialize;

use super::topology::Feed;
use super::violation::list;
use crate::protocol::Token;

/// What one instance still lacks of one writer's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// Who lacks whose rows of what.
    #[serde(flatten)]
    pub feed: Feed,
    /// What is lacking.
    pub what: Lack,
}

/// What is lacking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// The instance has not begun to follow: it is down, or its start never came to an end.
    Following,
    /// Tokens that were committed and not applied.
    Tokens {
        /// The tokens, ascending.
        tokens: Vec<Token>,
        /// The follower's position.
        position: Token,
    },
    /// No row, but the position stands elsewhere than it must; so it is with a writer that is idle (Synapse #8499).
    Position {
        /// The follower's position.
        position: Token,
        /// The position it must reach.
        expected: Token,
    },
    /// Users whose presence is not what it must be: `instance` is who decides it.
    Presence {
        /// Those who sync and are offline.
        offline: Vec<String>,
        /// Those who do not sync and are not offline.
        online: Vec<String>,
    },
    /// Rooms of which an in-memory stream's follower holds something else than the writer does.
    Rooms {
        /// The rooms.
        rooms: Vec<String>,
        /// The follower's position.
        position: Token,
    },
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Feed { instance, stream, writer } = &self.feed;
        match &self.what {
            Lack::Following => write!(f, "{instance} does not follow {stream} of {writer}"),
            Lack::Tokens { tokens, position } => {
                write!(f, "{instance} lacks {stream} of {writer}: tokens {} (position {position})", list(tokens))
            }
            Lack::Position { position, expected } => {
                write!(f, "{instance} stands at position {position} of {stream} of {writer}, not at {expected}")
            }
            Lack::Presence { offline, online } => {
                let sides = [(offline, "syncing and offline"), (online, "neither syncing nor offline")];
                let sides = sides.iter().filter(|(users, _)| !users.is_empty());
                let clauses: Vec<String> = sides.map(|(users, what)| format!("{what}: {}", list(users))).collect();
                f.write_str(&clauses.join("; "))
            }
            Lack::Rooms { rooms, position } => {
                write!(f, "{instance} is out of date on {stream} of {writer}: {} (position {position})", list(rooms))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_with_what_is_wrong_with_them() {
        let feed = Feed::new(&"master".into(), &"presence".into(), &"master".into());
        let what = Lack::Presence { offline: vec!["@a".into()], online: vec!["@b".into(), "@c".into()] };
        let pending = Pending { feed, what };
        assert_eq!(pending.to_string(), "syncing and offline: @a; neither syncing nor offline: @b, @c");
    }

    #[test]
    fn pending_tokens_are_named_with_who_lacks_them() {
        let feed = Feed::new(&"worker2".into(), &"events".into(), &"writer1".into());
        let what = Lack::Tokens { tokens: vec![Token(17), Token(18)], position: Token(16) };
        let pending = Pending { feed, what };
        assert_eq!(pending.to_string(), "worker2 lacks events of writer1: tokens 17, 18 (position 16)");
    }
}
