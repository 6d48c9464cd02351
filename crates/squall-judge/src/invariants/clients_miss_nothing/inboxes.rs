//! Messages to devices in answers: each once, in order, although answers are lost and instances die.
//!
//! A message is deleted once its device has acknowledged it, by a request with a token past it. A message deleted earlier
//! (when it was read, say) is lost with the answer that carried it. So the database does not count here: every message
//! that was put into the inbox is due until the client has it.

use std::collections::{BTreeMap, BTreeSet};

use super::difference::Difference;
use crate::observation::Client;
use squall_protocol::Token;

/// Every message that was put into an inbox.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    messages: BTreeMap<Client, BTreeSet<(Token, String)>>,
}

impl Inboxes {
    /// Records a message put into the inbox of a device.
    pub(super) fn left(&mut self, client: &Client, token: Token, message_id: &str) {
        self.messages.entry(client.clone()).or_default().insert((token, message_id.to_owned()));
    }

    /// Compares the messages that a device got with those in its inbox in `(since, next]`.
    pub(super) fn judge(
        &self,
        client: &Client,
        since: Token,
        next: Token,
        answered: &[(Token, String)],
    ) -> Result<(), Difference> {
        let messages = self.messages.get(client).into_iter().flatten();
        let mut expected = messages.filter(|(token, _)| since < *token && *token <= next);
        for message in answered {
            match expected.next() {
                Some(due) if due == message => {}
                Some(due) if due < message => return Err(Difference::not_told(due.0, &due.1)),
                _ => return Err(Difference::told_wrongly(message.0, &message.1)),
            }
        }
        match expected.next() {
            Some(due) => Err(Difference::not_told(due.0, &due.1)),
            None => Ok(()),
        }
    }
}
