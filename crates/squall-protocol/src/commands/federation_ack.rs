//! `FEDERATION_ACK <instance> <token>`: a federation sender has sent everything up to a token.
//!
//! The instance is named since Synapse #7798: with several senders, only entries that all of them have sent may leave the
//! queue.

use crate::arguments::{Arguments, integer};
use crate::{InstanceName, ParseErrorKind, Token};

/// A federation sender has sent everything up to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederationAck {
    /// The sender.
    pub instance: InstanceName,
    /// The last token of the federation stream that it has sent.
    pub token: Token,
}

impl FederationAck {
    pub(crate) fn parse(mut arguments: Arguments<'_>) -> Result<FederationAck, ParseErrorKind> {
        let instance = arguments.word("instance")?.into();
        let token = arguments.word("token")?;
        arguments.finish()?;
        Ok(FederationAck { instance, token: Token(integer("token", token)?) })
    }

    pub(crate) fn render(&self) -> String {
        let FederationAck { instance, token } = self;
        format!("{instance} {token}")
    }
}
