//! The small types of every layer: stream names, instance names and tokens.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// The name of the instance that every deployment has.
pub const MASTER: &str = "master";

/// The number of bits for the changes of one run. More changes continue in the numbers of the next run. The next run's own
/// numbers then look like those of a writer that went back, and the followers start over.
const RUN_SHIFT: u32 = 32;

/// A position in a stream. Synapse counts from 1; some streams count downwards, so it is signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);

impl Token {
    /// Returns the token after this one.
    pub fn next(self) -> Token {
        Token(self.0 + 1)
    }

    /// Returns the token before this one.
    pub fn prev(self) -> Token {
        Token(self.0 - 1)
    }

    /// Returns the beginning of the numbers of a stream in memory in the `run`-th run of its writer: above all numbers of
    /// earlier runs. The first row has the next number.
    ///
    /// Synapse begins at 0 each time; then a delayed row cannot be assigned to its run.
    pub fn beginning_of(run: i64) -> Token {
        Token(run << RUN_SHIFT)
    }

    /// Returns the run of the writer in which a stream in memory got this number; 0 in Synapse.
    pub fn run(self) -> i64 {
        self.0 >> RUN_SHIFT
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the first eight bytes of a name as a number that orders names as their texts do, as far as it tells them apart.
fn beginning(name: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Deserialize)]
        #[serde(from = "Arc<str>")]
        pub struct $name {
            text: Arc<str>,
            /// See [`beginning`].
            beginning: u64,
        }

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.text
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(name: T) -> Self {
                let text = name.into();
                $name { beginning: beginning(&text), text }
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            /// Compares the texts. Most names differ at the beginning, or are copies of one another.
            fn cmp(&self, other: &Self) -> Ordering {
                let text = || if Arc::ptr_eq(&self.text, &other.text) { Ordering::Equal } else { self.text.cmp(&other.text) };
                self.beginning.cmp(&other.beginning).then_with(text)
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.text.serialize(serializer)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.text
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.text == other
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.text.fmt(f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.text.fmt(f)
            }
        }
    };
}

name! {
    /// The name of an instance: `master`, or a worker's name from the configuration.
    InstanceName
}

name! {
    /// The name of a stream on the wire. A peer may name streams this process does not know.
    StreamName
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_compared_by_their_texts(a in "[a\\x00\u{fc}]{0,6}", b in "[a\\x00\u{fc}]{0,6}") {
            let (one, other) = (StreamName::from(&*a), StreamName::from(&*b));
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            prop_assert_eq!(one == other, a == b);
            prop_assert_eq!(one.cmp(&one.clone()), Ordering::Equal);
        }
    }

    #[test]
    fn a_number_of_a_stream_in_memory_tells_the_run_of_its_writer() {
        assert_eq!(Token::beginning_of(3).run(), 3);
        assert_eq!(Token::beginning_of(3).next().run(), 3);
        assert_eq!(Token::beginning_of(3).prev().run(), 2);
        assert_eq!(Token(7).run(), 0, "Synapse counts from 1 each time");
    }

    #[test]
    fn the_token_before_the_next_one_is_the_same() {
        assert_eq!((Token(7).next(), Token(7).prev()), (Token(8), Token(6)));
        assert_eq!(Token(-7).next().prev(), Token(-7));
    }
}
