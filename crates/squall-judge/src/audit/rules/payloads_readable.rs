//! Every payload can be parsed.
//!
//! Over TCP a line that is not a command closes the connection. Over Redis it is logged and dropped, and so is a row that
//! its stream cannot parse: its content is lost to every instance.
//!
//! No false alarm: a row is checked against the shape that its stream has in the version of the traffic. Each version's own
//! streams are all known. Rows of other streams are not judged; the report names those streams.
//!
//! Class: loss. No instance applies the payload, and the traffic does not show whether it was meant for one. If it is
//! only not followed here, the audit cannot say that nothing of its stream or writer is lost.

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::payload::{ParsedPayload, Unreadable};
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, Quoted, RowError, StreamName};

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A payload is not a command.
    #[error("{error}")]
    NotACommand { error: String },
    /// A payload is too long, or has more streams, more writers or longer names than the audit remembers.
    #[error("{error}")]
    Unfollowed { error: String },
    /// A row does not have the shape of its stream's rows.
    #[error("{error}")]
    NotARow { stream: StreamName, error: String },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }

    fn stream(&self) -> Option<&StreamName> {
        match self {
            Violation::NotARow { stream, .. } => Some(stream),
            Violation::NotACommand { .. } | Violation::Unfollowed { .. } => None,
        }
    }
}

/// Checks every payload, and every row of a stream of Synapse.
#[derive(Debug, Default)]
pub(super) struct PayloadsReadable {
    judged: u64,
}

impl Rule for PayloadsReadable {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        self.judged += 1;
        match payload.command {
            Err(error @ (Unreadable::TooLong(_) | Unreadable::Unfollowed(_))) => {
                findings.add(payload.line, Violation::Unfollowed { error: Quoted(error).to_string() });
            }
            Err(error) => findings.add(payload.line, Violation::NotACommand { error: Quoted(error).to_string() }),
            Ok(Command::Rdata(rdata)) => match payload.dialect.check_row(&rdata.stream, rdata.row.clone()) {
                Ok(()) | Err(RowError::UnknownStream(_)) => {}
                Err(error @ RowError::Shape { .. }) => {
                    let stream = rdata.stream.clone();
                    findings.add(payload.line, Violation::NotARow { stream, error: Quoted(error).to_string() });
                }
            },
            Ok(_) => {}
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        // Each payload is judged by itself.
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::finding::Kind;
    use crate::audit::testing::{found, found_at};
    use crate::audit::{Audit, Payload, Transport};
    use squall_protocol::Dialect;

    #[test]
    fn a_payload_that_is_no_command_or_no_row_is_found() {
        let payloads = [
            "NOSUCH 1",
            r#"RDATA events a 2 ["ev",[]]"#,
            r#"RDATA typing a 2 ["!room",["@user"]]"#,
            r#"RDATA nonesuch a 2 [1,2,3]"#,
            "RDATA typing a 2 [",
        ];
        let found = found(PayloadsReadable::default(), &payloads);
        assert_eq!(found, [(1, "not_a_command"), (2, "not_a_row"), (5, "not_a_command")]);
    }

    #[test]
    fn a_row_of_every_stream_is_judged_by_the_version_of_the_traffic() {
        let judge = |dialect: Dialect, payloads: &[String]| {
            let mut audit = Audit::new(Transport::Redis, Some(dialect));
            let check = |(line, text): (u64, &String)| {
                let data = text.as_bytes();
                audit.check(&Payload { line, at: None, channel: None, data })
            };
            let found: Vec<_> = (1..).zip(payloads).flat_map(check).map(|finding| finding.violation.kind()).collect();
            found.iter().filter(|kind| **kind == "not_a_row").count()
        };
        for dialect in [Dialect::V1_163, Dialect::V1_19] {
            let nothing: Vec<_> = dialect.streams().iter().map(|stream| format!("RDATA {stream} a 2 [1]")).collect();
            assert_eq!(judge(dialect, &nothing), dialect.streams().len());
        }
        let devices = [r#"RDATA device_lists a 2 ["@u:h"]"#.to_owned()];
        assert_eq!([Dialect::V1_163, Dialect::V1_19].map(|dialect| judge(dialect, &devices)), [1, 0]);
    }

    #[test]
    fn a_finding_quotes_little_of_a_long_payload() {
        let long = "\u{1b}".repeat(100_000);
        let row = format!(r#"RDATA typing a 2 ["!room",{}]"#, serde_json::json!(long));
        for (payload, kind) in [(&*long, "not_a_command"), (&*row, "not_a_row")] {
            let found = found_at(PayloadsReadable::default(), &[(0, payload)]);
            let [finding] = &found[..] else { panic!("{found:?}") };
            let text = finding.violation.to_string();
            assert!(finding.violation.kind() == kind && text.len() < 3_000 && !text.contains('\u{1b}'), "{text}");
        }
    }
}
