//! Work that is not done yet.
//!
//! During the storm this is normal. Afterwards everything must converge within the calm bound; what is pending then names
//! the stuck stream and instance.

use std::fmt;

use serde::Serialize;

use super::topology::FollowerKey;
use super::violation::list;
use squall_protocol::Token;

/// The part of one writer's rows that one instance still lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The instance, the stream and the writer.
    #[serde(flatten)]
    pub follower: FollowerKey,
    /// The reason.
    pub what: PendingReason,
}

/// The reason why something is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingReason {
    /// The instance has not begun to follow: it is down, or its start never ended.
    Following,
    /// Tokens that were committed and not applied.
    Tokens {
        /// The tokens, ascending.
        tokens: Vec<Token>,
        /// The follower's position.
        position: Token,
    },
    /// No row is lacking, but the position is wrong, as happens with an idle writer (Synapse #8499).
    Position {
        /// The follower's position.
        position: Token,
        /// The position it must reach.
        expected: Token,
    },
    /// Users whose presence is wrong. `instance` is the presence writer.
    Presence {
        /// The users who sync and are offline.
        offline: Vec<String>,
        /// The users who do not sync and are not offline.
        online: Vec<String>,
    },
    /// Users whose state is not what their devices make it. `instance` is the presence writer.
    States {
        /// The users, each with the state and the right one.
        users: Vec<String>,
    },
    /// Rooms for which a follower of a stream in memory differs from the writer.
    Rooms {
        /// The rooms.
        rooms: Vec<String>,
        /// The follower's position.
        position: Token,
    },
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FollowerKey { instance, stream, writer } = &self.follower;
        match &self.what {
            PendingReason::Following => write!(f, "{instance} does not follow {stream} of {writer}"),
            PendingReason::Tokens { tokens, position } => {
                write!(f, "{instance} lacks {stream} of {writer}: tokens {} (position {position})", list(tokens))
            }
            PendingReason::Position { position, expected } => {
                write!(f, "{instance} is at position {position} of {stream} of {writer}, not at {expected}")
            }
            PendingReason::Presence { offline, online } => {
                let sides = [(offline, "syncing and offline"), (online, "neither syncing nor offline")];
                let sides = sides.iter().filter(|(users, _)| !users.is_empty());
                let clauses: Vec<String> = sides.map(|(users, what)| format!("{what}: {}", list(users))).collect();
                f.write_str(&clauses.join("; "))
            }
            PendingReason::States { users } => f.write_str(&list(users)),
            PendingReason::Rooms { rooms, position } => {
                write!(f, "{instance} is out of date on {stream} of {writer}: {} (position {position})", list(rooms))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_with_their_wrong_presence() {
        let follower = FollowerKey::new(&"master".into(), &"presence".into(), &"master".into());
        let what = PendingReason::Presence { offline: vec!["@a".into()], online: vec!["@b".into(), "@c".into()] };
        let pending = Pending { follower, what };
        assert_eq!(pending.to_string(), "syncing and offline: @a; neither syncing nor offline: @b, @c");
    }

    #[test]
    fn pending_tokens_are_named_with_the_instance_that_lacks_them() {
        let follower = FollowerKey::new(&"worker2".into(), &"events".into(), &"writer1".into());
        let what = PendingReason::Tokens { tokens: vec![Token(17), Token(18)], position: Token(16) };
        let pending = Pending { follower, what };
        assert_eq!(pending.to_string(), "worker2 lacks events of writer1: tokens 17, 18 (position 16)");
    }
}
