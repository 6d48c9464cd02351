//! The typing stream on one instance: in memory on its writer, fetched by HTTP from the writer elsewhere.

use std::rc::Rc;

use super::handler::TypingHandler;
use crate::streams::stream::{RemoteUpdates, Stream, UpdateError};
use squall_env::LocalBoxFuture;
use squall_protocol::rows::typing::NAME;
use squall_protocol::rows::{ROWS_TARGET, Row, Updates};
use squall_protocol::{Delivery, InstanceName, StreamName, Token};

/// The typing stream of one instance.
pub struct TypingStream {
    name: StreamName,
    writers: [InstanceName; 1],
    handler: Rc<TypingHandler>,
    /// The connection to the writer; `None` on the writer itself.
    remote: Option<Rc<dyn RemoteUpdates>>,
}

impl TypingStream {
    /// Creates the stream on its writer.
    pub fn on_writer(writer: InstanceName, handler: Rc<TypingHandler>) -> Self {
        TypingStream { name: NAME.into(), writers: [writer], handler, remote: None }
    }

    /// Creates the stream on any other instance.
    pub fn on_follower(writer: InstanceName, handler: Rc<TypingHandler>, remote: Rc<dyn RemoteUpdates>) -> Self {
        TypingStream { name: NAME.into(), writers: [writer], handler, remote: Some(remote) }
    }
}

impl Stream for TypingStream {
    fn name(&self) -> &StreamName {
        &self.name
    }

    fn delivery(&self) -> Delivery {
        Delivery::Memory
    }

    fn writers(&self) -> &[InstanceName] {
        &self.writers
    }

    fn position(&self, _writer: &InstanceName) -> Token {
        self.handler.serial()
    }

    fn written_upto(&self, _writer: &InstanceName) -> Token {
        self.handler.serial()
    }

    fn updates(
        &self,
        writer: &InstanceName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        match &self.remote {
            Some(remote) => remote.updates(writer, &self.name, from, upto),
            None => {
                let updates = self.handler.updates(from, upto, ROWS_TARGET);
                Box::pin(async move { Ok(updates) })
            }
        }
    }

    fn apply(&self, _writer: &InstanceName, token: Token, rows: &[Row]) {
        for row in rows {
            if let Row::Typing(row) = row {
                self.handler.apply(token, row);
            }
        }
    }

    fn advance(&self, _writer: &InstanceName, token: Token) {
        self.handler.advance(token);
    }

    fn reset(&self, _writer: &InstanceName) {
        self.handler.reset();
    }
}
