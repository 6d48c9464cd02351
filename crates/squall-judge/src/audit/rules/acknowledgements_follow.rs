//! Acknowledgements follow announcements.
//!
//! `FEDERATION_ACK` makes the writer of `federation` forget every row up to its token. A token that was never announced
//! belongs to an earlier process, whose numbers mean other rows: the new rows would be forgotten before they are sent.
//!
//! No false alarm: nothing is judged before the stream's position is known, and a sender may acknowledge the same token
//! again or a lower one.
//!
//! Class: loss. The writer forgets rows that it has not sent.

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, Token};

const FEDERATION: &str = "federation";

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A federation sender acknowledged a token that had not been announced.
    #[error("{instance} acknowledged federation rows up to {token}, but {announced} was the last one announced")]
    AcknowledgedAhead { instance: InstanceName, token: Token, announced: Token },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }
}

/// Checks every acknowledgement against the stream's position.
#[derive(Debug, Default)]
pub(super) struct AcknowledgementsFollow {
    announced: Option<Token>,
    judged: u64,
}

impl Rule for AcknowledgementsFollow {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        match payload.command {
            // A new process of the writer counts from the beginning.
            Ok(Command::Position(position)) if position.stream.as_str() == FEDERATION => {
                self.announced = Some(position.new);
            }
            Ok(Command::Rdata(rdata)) if rdata.stream.as_str() == FEDERATION => {
                self.announced = rdata.token.or(self.announced);
            }
            Ok(Command::FederationAck(ack)) => {
                let Some(announced) = self.announced else { return };
                self.judged += 1;
                if ack.token > announced {
                    let instance = ack.instance.clone();
                    findings.add(payload.line, Violation::AcknowledgedAhead { instance, token: ack.token, announced });
                }
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.announced = None;
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::found;

    #[test]
    fn an_announced_token_may_be_acknowledged() {
        let payloads = [
            "FEDERATION_ACK sender 9",
            "POSITION federation master 4 4",
            r#"RDATA federation master 5 ["e",{}]"#,
            "FEDERATION_ACK sender 5",
            "FEDERATION_ACK sender 4",
        ];
        assert_eq!(found(AcknowledgementsFollow::default(), &payloads), []);
    }

    #[test]
    fn an_acknowledgement_of_an_earlier_process_is_found() {
        let payloads = [
            "POSITION federation master 9 9",
            "FEDERATION_ACK sender 9",
            "POSITION federation master 0 0",
            "FEDERATION_ACK sender 9",
        ];
        assert_eq!(found(AcknowledgementsFollow::default(), &payloads), [(4, "acknowledged_ahead")]);
    }
}
