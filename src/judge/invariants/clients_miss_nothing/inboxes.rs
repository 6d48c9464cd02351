//! What devices are told of the messages to them: each once, in order, whatever happens to answers and instances.
//!
//! A message is forgotten once its device has acknowledged it, by coming with a token that is past it. One that is
//! forgotten earlier (when it was read, say) is lost with the answer that carried it. So what is in the database does not
//! count here: what was put into the inbox is due, until the client has it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

use super::Difference;
use crate::judge::observation::Client;
use crate::protocol::Token;

/// Every message that was put into an inbox.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    messages: BTreeMap<Client, BTreeSet<(Token, String)>>,
}

impl Inboxes {
    /// A message was put into the inbox of a device.
    pub fn left(&mut self, client: &Client, token: Token, message_id: &str) {
        self.messages.entry(client.clone()).or_default().insert((token, message_id.to_owned()));
    }

    /// Compares what a device was told with what there is in `(since, next]`.
    pub fn judge(
        &self,
        client: &Client,
        since: Token,
        next: Token,
        told: &[(Token, String)],
    ) -> Result<(), Difference> {
        let nothing = BTreeSet::new();
        let (from, upto) = ((since.next(), String::new()), (next.next(), String::new()));
        let messages = self.messages.get(client).unwrap_or(&nothing);
        let mut expected = messages.range((Included(from.clone()), Excluded(upto.max(from))));
        for message in told {
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
