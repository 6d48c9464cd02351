//! The typing stream as one instance has it: in memory on its writer, and by HTTP from the writer elsewhere.

use std::rc::Rc;

use super::TypingHandler;
use crate::env::LocalBoxFuture;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::{Promise, ROWS_TARGET, RemoteUpdates, Row, Stream, UpdateError, Updates};

/// The typing stream of one instance.
pub struct TypingStream {
    name: StreamName,
    writers: [InstanceName; 1],
    handler: Rc<TypingHandler>,
    /// How to ask the writer; none on the writer itself.
    remote: Option<Rc<dyn RemoteUpdates>>,
}

impl TypingStream {
    /// The stream on its writer.
    pub fn on_writer(writer: InstanceName, handler: Rc<TypingHandler>) -> Self {
        TypingStream { name: super::NAME.into(), writers: [writer], handler, remote: None }
    }

    /// The stream on any other instance.
    pub fn on_follower(writer: InstanceName, handler: Rc<TypingHandler>, remote: Rc<dyn RemoteUpdates>) -> Self {
        TypingStream { name: super::NAME.into(), writers: [writer], handler, remote: Some(remote) }
    }
}

impl Stream for TypingStream {
    fn name(&self) -> &StreamName {
        &self.name
    }

    fn promise(&self) -> Promise {
        Promise::Memory
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

    fn take(&self, _writer: &InstanceName, token: Token, rows: &[Row]) {
        for row in rows {
            if let Row::Typing(row) = row {
                self.handler.take(token, row);
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
