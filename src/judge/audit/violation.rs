//! What traffic can show to be wrong, with the evidence.
//!
//! As the judge's own [violations](crate::judge::Violation): data, with a fingerprint that names the rule, the stream and
//! the kind, and nothing that differs from recording to recording.

use std::fmt;

use serde::Serialize;

use super::Origin;
use crate::judge::violation::list;
use crate::protocol::{InstanceName, StreamName, Token};

/// A rule that traffic did not keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "a variant's fields are the words of its own sentence")]
pub enum Violation {
    /// A payload is no command.
    NotACommand { error: String },
    /// A payload names more than is followed.
    Unfollowed { error: String },
    /// A row is not of the shape its stream prescribes.
    NotARow { stream: StreamName, error: String },
    /// A command travelled against its direction.
    WrongWay { command: &'static str },
    /// A command was published on another channel than those who need it listen to.
    WrongChannel { command: &'static str, channel: String },
    /// The same rows were sent again under a token that had been sent.
    Repeated {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        last: Token,
    },
    /// Other rows were sent under a token that had been sent.
    Contradicted {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        last: Token,
    },
    /// A row came that had not been sent before, after one with a higher token.
    Behind {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        last: Token,
    },
    /// A position went back, in a stream that is not kept in memory.
    WentBack {
        #[serde(flatten)]
        origin: Origin,
        from: Token,
        to: Token,
    },
    /// A row came after a position that had passed it.
    Passed {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        position: Token,
        announced_on: u64,
    },
    /// A position says that there are no rows between its tokens, and there was one.
    Hidden {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        prev: Token,
        new: Token,
    },
    /// A position begins further on than the writer had come, and what lies between was never sent by anybody.
    Skipped {
        #[serde(flatten)]
        origin: Origin,
        from: Token,
        prev: Token,
        /// The first of the tokens.
        tokens: Vec<Token>,
        count: u64,
    },
    /// Rows came, and before them tokens that nobody ever sent.
    PassedOver {
        stream: StreamName,
        writers: Vec<InstanceName>,
        /// The first of the tokens.
        tokens: Vec<Token>,
        count: u64,
    },
    /// A writer's batch was open when another writer of the stream sent something of it.
    Interleaved {
        #[serde(flatten)]
        origin: Origin,
        open: InstanceName,
        open_since: u64,
    },
    /// A batch was not completed before its writer's position came.
    CutShort {
        #[serde(flatten)]
        origin: Origin,
        rows: u64,
        open_since: u64,
    },
    /// A position moves over tokens that are other writers' rows.
    OfOthers {
        #[serde(flatten)]
        origin: Origin,
        prev: Token,
        new: Token,
        others: Vec<InstanceName>,
    },
    /// A second instance writes a stream that has one writer.
    SecondWriter {
        #[serde(flatten)]
        origin: Origin,
        first: InstanceName,
    },
    /// An instance writes a stream that others are known to write.
    NotItsWriter {
        #[serde(flatten)]
        origin: Origin,
        writers: Vec<InstanceName>,
    },
    /// A writer said the same position again, where one REPLICATE had been answered and nothing had happened since.
    Twice {
        #[serde(flatten)]
        origin: Origin,
        position: Token,
        first_on: u64,
    },
    /// A REPLICATE was not answered for a writer that is known.
    Unanswered {
        #[serde(flatten)]
        origin: Origin,
        waited_ms: u64,
    },
    /// More REPLICATEs in a while than the instances heard of can need.
    Storm { replicates: usize, within_ms: u64, instances: usize },
    /// A process whose users went on to another one never said that it serves them no more.
    NotCleared { instance_id: String, devices: usize, successors: Vec<String> },
    /// A process gave no sign of life for so long, and never said that it serves its users no more.
    Lifeless { instance_id: String, devices: usize, silent_ms: u64 },
    /// A federation sender acknowledged what had not been announced.
    AcknowledgedAhead { instance: InstanceName, token: Token, announced: Token },
}

impl Violation {
    /// The name of the rule that was not kept.
    pub fn rule(&self) -> &'static str {
        match self {
            Violation::NotACommand { .. } | Violation::Unfollowed { .. } | Violation::NotARow { .. } => {
                "payloads_readable"
            }
            Violation::WrongWay { .. } | Violation::WrongChannel { .. } => "commands_in_direction",
            Violation::Repeated { .. }
            | Violation::Contradicted { .. }
            | Violation::Behind { .. }
            | Violation::WentBack { .. } => "tokens_ascend",
            Violation::Passed { .. } | Violation::Hidden { .. } => "positions_hide_no_rows",
            Violation::Skipped { .. } => "positions_meet",
            Violation::PassedOver { .. } => "rows_complete",
            Violation::Interleaved { .. } | Violation::CutShort { .. } => "batches_whole",
            Violation::OfOthers { .. } => "announcements_are_own",
            Violation::SecondWriter { .. } | Violation::NotItsWriter { .. } => "one_writer",
            Violation::Twice { .. } | Violation::Unanswered { .. } => "replicate_answered_once",
            Violation::Storm { .. } => "replicates_bounded",
            Violation::NotCleared { .. } | Violation::Lifeless { .. } => "syncs_cleared",
            Violation::AcknowledgedAhead { .. } => "acknowledgements_follow",
        }
    }

    /// How it was not kept, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Violation::NotACommand { .. } => "not_a_command",
            Violation::Unfollowed { .. } => "unfollowed",
            Violation::NotARow { .. } => "not_a_row",
            Violation::WrongWay { .. } => "wrong_way",
            Violation::WrongChannel { .. } => "wrong_channel",
            Violation::Repeated { .. } => "repeated",
            Violation::Contradicted { .. } => "contradicted",
            Violation::Behind { .. } => "behind",
            Violation::WentBack { .. } => "went_back",
            Violation::Passed { .. } => "passed",
            Violation::Hidden { .. } => "hidden",
            Violation::Skipped { .. } => "skipped",
            Violation::PassedOver { .. } => "passed_over",
            Violation::Interleaved { .. } => "interleaved",
            Violation::CutShort { .. } => "cut_short",
            Violation::OfOthers { .. } => "of_others",
            Violation::SecondWriter { .. } => "second_writer",
            Violation::NotItsWriter { .. } => "not_its_writer",
            Violation::Twice { .. } => "twice",
            Violation::Unanswered { .. } => "unanswered",
            Violation::Storm { .. } => "storm",
            Violation::NotCleared { .. } => "not_cleared",
            Violation::Lifeless { .. } => "lifeless",
            Violation::AcknowledgedAhead { .. } => "acknowledged_ahead",
        }
    }

    /// The writer and stream it is about, if it is about one.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Violation::Repeated { origin, .. }
            | Violation::Contradicted { origin, .. }
            | Violation::Behind { origin, .. }
            | Violation::WentBack { origin, .. }
            | Violation::Passed { origin, .. }
            | Violation::Hidden { origin, .. }
            | Violation::Skipped { origin, .. }
            | Violation::Interleaved { origin, .. }
            | Violation::CutShort { origin, .. }
            | Violation::OfOthers { origin, .. }
            | Violation::SecondWriter { origin, .. }
            | Violation::NotItsWriter { origin, .. }
            | Violation::Twice { origin, .. }
            | Violation::Unanswered { origin, .. } => Some(origin),
            Violation::NotACommand { .. }
            | Violation::Unfollowed { .. }
            | Violation::NotARow { .. }
            | Violation::PassedOver { .. }
            | Violation::WrongWay { .. }
            | Violation::WrongChannel { .. }
            | Violation::Storm { .. }
            | Violation::NotCleared { .. }
            | Violation::Lifeless { .. }
            | Violation::AcknowledgedAhead { .. } => None,
        }
    }

    /// The stream it is about, if it is about one.
    pub fn stream(&self) -> Option<&StreamName> {
        match self {
            Violation::NotARow { stream, .. } | Violation::PassedOver { stream, .. } => Some(stream),
            _ => self.origin().map(|origin| &origin.stream),
        }
    }

    /// `rule/stream/kind`, or `rule/kind` where no stream is concerned.
    pub fn fingerprint(&self) -> String {
        match self.stream() {
            Some(stream) => format!("{}/{stream}/{}", self.rule(), self.kind()),
            None => format!("{}/{}", self.rule(), self.kind()),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::NotACommand { error } | Violation::Unfollowed { error } | Violation::NotARow { error, .. } => {
                f.write_str(error)
            }
            Violation::WrongWay { command } => write!(f, "{command} does not travel this way"),
            Violation::WrongChannel { command, channel } => {
                write!(f, "{command} was published on {channel}, where it is not looked for")
            }
            Violation::Repeated { origin, token, last } => {
                write!(f, "{origin}: the rows of {token} were sent again, after those of {last}")
            }
            Violation::Contradicted { origin, token, last } => {
                write!(f, "{origin}: other rows were sent under {token} than before, after those of {last}")
            }
            Violation::Behind { origin, token, last } => {
                write!(f, "{origin}: the rows of {token} came after those of {last}, and every follower drops them")
            }
            Violation::WentBack { origin, from, to } => {
                write!(f, "{origin}: the position went back from {from} to {to}, and nothing here begins again")
            }
            Violation::Passed { origin, token, position, announced_on } => write!(
                f,
                "{origin}: a row of {token} came after the position {position} of line {announced_on}, and whoever \
                 follows drops it"
            ),
            Violation::Hidden { origin, token, prev, new } => {
                write!(
                    f,
                    "{origin}: the position from {prev} to {new} says that there is no row, and there was {token}"
                )
            }
            Violation::Skipped { origin, from, prev, tokens, count } => {
                write!(f, "{origin}: was at {from} and goes on from {prev}; nobody ever sent {}", list(tokens))?;
                let more = count - tokens.len() as u64;
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Violation::PassedOver { stream, writers, tokens, count } => {
                write!(f, "{stream}: nobody ever sent {}", list(tokens))?;
                let more = count - tokens.len() as u64;
                if more > 0 {
                    write!(f, " and {more} more")?;
                }
                write!(f, ", and rows of {} went on behind", list(writers))
            }
            Violation::Interleaved { origin, open, open_since } => {
                write!(f, "{origin}: came into the batch that {open} had begun on line {open_since}")
            }
            Violation::CutShort { origin, rows, open_since } => {
                write!(
                    f,
                    "{origin}: a position came before the end of the batch of line {open_since}, {rows} rows so far"
                )
            }
            Violation::OfOthers { origin, prev, new, others } => {
                write!(f, "{origin}: the position from {prev} to {new} tells of rows of {} alone", list(others))
            }
            Violation::SecondWriter { origin, first } => {
                write!(f, "{origin}: the stream has one writer, which so far was {first}")
            }
            Violation::NotItsWriter { origin, writers } => {
                write!(f, "{origin}: the stream is written by {} alone", list(writers))
            }
            Violation::Twice { origin, position, first_on } => {
                write!(
                    f,
                    "{origin}: position {position} was said again; line {first_on} had said it, and nothing since"
                )
            }
            Violation::Unanswered { origin, waited_ms } => {
                write!(f, "{origin}: no position came within {waited_ms} ms of the REPLICATE")
            }
            Violation::Storm { replicates, within_ms, instances } => {
                write!(f, "{replicates} REPLICATEs within {within_ms} ms, from {instances} instances as far as heard")
            }
            Violation::NotCleared { instance_id, devices, successors } => write!(
                f,
                "process {instance_id} never said CLEAR_USER_SYNC: its {devices} devices sync with {} now, and it has \
                 said neither that they stopped nor anything else",
                list(successors)
            ),
            Violation::Lifeless { instance_id, devices, silent_ms } => write!(
                f,
                "process {instance_id} never said CLEAR_USER_SYNC: {devices} devices sync with it, as far as heard, and it \
                 has given no sign of life for {silent_ms} ms",
            ),
            Violation::AcknowledgedAhead { instance, token, announced } => {
                write!(f, "{instance} acknowledged federation rows up to {token}, where {announced} was announced")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(tokens: &[i64], count: u64) -> Violation {
        let origin = Origin { stream: "receipts".into(), writer: "writer1".into() };
        let tokens = tokens.iter().copied().map(Token).collect();
        Violation::Skipped { origin, from: Token(75), prev: Token(80), tokens, count }
    }

    #[test]
    fn a_fingerprint_names_rule_stream_and_kind() {
        assert_eq!(skipped(&[76], 1).fingerprint(), "positions_meet/receipts/skipped");
        assert_eq!(skipped(&[76], 1).fingerprint(), skipped(&[77, 78], 2).fingerprint());
        let storm = Violation::Storm { replicates: 20, within_ms: 60_000, instances: 6 };
        assert_eq!(storm.fingerprint(), "replicates_bounded/storm");
    }

    #[test]
    fn the_kind_in_json_is_the_kind_of_the_fingerprint() {
        let json = serde_json::to_value(skipped(&[76], 1)).unwrap();
        assert_eq!((&json["kind"], &json["writer"]), (&"skipped".into(), &"writer1".into()));
    }

    #[test]
    fn a_sentence_stays_short() {
        let sentence = skipped(&[76, 77], 5).to_string();
        assert_eq!(sentence, "receipts of writer1: was at 75 and goes on from 80; nobody ever sent 76, 77 and 3 more");
    }
}
