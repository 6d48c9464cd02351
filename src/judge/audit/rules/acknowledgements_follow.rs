//! Acknowledgements follow what they acknowledge.
//!
//! `FEDERATION_ACK` makes the writer of `federation` forget every row up to its token. A token that was never announced
//! is a former process's, whose numbers mean other rows: the new ones would be forgotten before they are sent.
//!
//! No false alarm: nothing is judged before the stream's position is known, and a sender may acknowledge the same token
//! again or a lower one.

use super::Rule;
use crate::judge::audit::{Findings, Heard, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, Token};

const FEDERATION: &str = "federation";

/// Judges every acknowledgement.
#[derive(Debug, Default)]
pub struct AcknowledgementsFollow {
    announced: Option<Token>,
    judged: u64,
}

impl Rule for AcknowledgementsFollow {
    fn name(&self) -> &'static str {
        "acknowledgements_follow"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        match heard.said {
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
                    let (instance, token) = (ack.instance.clone(), ack.token);
                    findings.add(heard.line, Violation::AcknowledgedAhead { instance, token, announced });
                }
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        self.announced = None;
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found;

    #[test]
    fn what_was_announced_may_be_acknowledged() {
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
    fn an_acknowledgement_of_a_former_process_is_found() {
        let payloads = [
            "POSITION federation master 9 9",
            "FEDERATION_ACK sender 9",
            "POSITION federation master 0 0",
            "FEDERATION_ACK sender 9",
        ];
        assert_eq!(found(AcknowledgementsFollow::default(), &payloads), [(4, "acknowledged_ahead")]);
    }
}
