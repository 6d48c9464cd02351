//! Every payload reads.
//!
//! Over TCP a line that is no command costs the connection. Over Redis it is logged and gone, and so is a row that its
//! stream does not understand: what it said never reaches anybody.
//!
//! No false alarm: rows are held against the shapes of Synapse 1.163, so those of an older dialect are not judged, nor are
//! streams that Squall does not have; those are named in the report.

use super::Rule;
use crate::judge::audit::{Findings, Heard, Unreadable, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, Dialect};
use crate::streams::{Row, RowError};

/// Judges every payload, and every row of a known stream.
#[derive(Debug, Default)]
pub struct PayloadsReadable {
    judged: u64,
}

impl Rule for PayloadsReadable {
    fn name(&self) -> &'static str {
        "payloads_readable"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        self.judged += 1;
        match heard.said {
            Err(error @ Unreadable::Unfollowed(_)) => {
                findings.add(heard.line, Violation::Unfollowed { error: error.to_string() });
            }
            Err(error) => findings.add(heard.line, Violation::NotACommand { error: error.to_string() }),
            Ok(Command::Rdata(rdata)) if heard.dialect == Dialect::V1_163 => {
                match Row::parse(&rdata.stream, rdata.row.clone()) {
                    Ok(_) | Err(RowError::UnknownStream(_)) => {}
                    Err(error @ RowError::Shape { .. }) => {
                        let (stream, error) = (rdata.stream.clone(), error.to_string());
                        findings.add(heard.line, Violation::NotARow { stream, error });
                    }
                }
            }
            Ok(_) => {}
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        // Each is judged by itself.
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
    fn what_is_no_command_or_no_row_is_found() {
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
}
