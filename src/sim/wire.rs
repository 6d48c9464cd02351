//! What goes over replication connections, as lines: those of the line protocol, and the payloads that pass through a
//! broker. Instances are not asked: this is decoded from the bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::broker::resp::{Replies, Reply, Requests};
use super::engine::{End, Side};
use super::world::{BROKER_PORT, REPLICATION_PORT};
use crate::env::{Address, Scope};
use crate::judge::{self, PUBLICATIONS, SUBSCRIPTION};
use crate::protocol::{InstanceName, LineDecoder};

/// Whether rows come to that port.
pub fn is_of_replication(port: u16) -> bool {
    port == REPLICATION_PORT || port == BROKER_PORT
}

/// What the judge calls the other end of a connection that is being made. An instance has two to the broker, which look
/// alike until something is said on them: the task that makes it tells which.
pub fn target(to: &Address) -> InstanceName {
    if to.port != BROKER_PORT {
        return Arc::clone(&to.host).into();
    }
    let is_subscription = Scope::current_task() == Some("stay_subscribed");
    (if is_subscription { SUBSCRIPTION } else { PUBLICATIONS }).into()
}

/// Decodes both directions of every connection.
#[derive(Default)]
pub struct Wire {
    /// What each client end has read so far.
    read: BTreeMap<u64, Reading>,
    /// What each end has written so far. What the broker writes is what others have.
    written: BTreeMap<(u64, Side), Writing>,
    /// The connections on which instances publish, and how much of what was asked on each has no answer yet.
    publications: BTreeMap<u64, usize>,
}

enum Reading {
    Lines(LineDecoder),
    Replies(Replies),
}

enum Writing {
    Lines(LineDecoder),
    Requests(Requests),
}

/// What a client end has read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The lines, whole ones that are text.
    pub lines: Vec<String>,
    /// How many there were, with those that are not.
    pub count: u64,
    /// Whether the broker has answered all that was asked, on a connection that is there to publish.
    pub is_answered: bool,
    /// Whether the broker has answered a ping on a subscription.
    pub has_pong: bool,
}

impl Wire {
    /// A connection to the broker is made.
    pub fn connecting(&mut self, attempt: u64, target: &InstanceName) {
        if target.as_str() == PUBLICATIONS {
            self.publications.insert(attempt, 0);
        }
    }

    /// What has come in with `bytes`.
    pub fn read(&mut self, end: &End, bytes: &[u8]) -> Read {
        let mut came = Read::default();
        let reading = self.read.entry(end.connection).or_insert_with(|| match end.port {
            BROKER_PORT => Reading::Replies(Replies::default()),
            _ => Reading::Lines(LineDecoder::default()),
        });
        match reading {
            Reading::Lines(lines) => {
                lines.extend(bytes);
                while let Some(line) = lines.next_line() {
                    came.count += 1;
                    came.lines.extend(line.ok());
                }
            }
            Reading::Replies(replies) => {
                replies.extend(bytes);
                let mut unanswered = self.publications.get_mut(&end.connection);
                while let Some(reply) = replies.next_reply() {
                    if let Some(unanswered) = &mut unanswered {
                        **unanswered = unanswered.saturating_sub(1);
                        // An answer to what was said to be let in is no answer yet.
                        came.is_answered = **unanswered == 0 && reply != Reply::Simple("OK".into());
                    } else if let Some(payload) = published(&reply) {
                        came.count += 1;
                        came.lines.extend(text(payload));
                    } else {
                        came.has_pong |= is_pong(&reply);
                    }
                }
            }
        }
        came
    }

    /// The lines that were written with `bytes`; none for one that is no text.
    pub fn written(&mut self, end: &End, bytes: &[u8]) -> Vec<Option<String>> {
        let mut said = Vec::new();
        if (end.port, end.side) == (BROKER_PORT, Side::Server) {
            return said;
        }
        let writing = self.written.entry((end.connection, end.side)).or_insert_with(|| match end.port {
            BROKER_PORT => Writing::Requests(Requests::default()),
            _ => Writing::Lines(LineDecoder::default()),
        });
        match writing {
            Writing::Lines(lines) => {
                lines.extend(bytes);
                while let Some(line) = lines.next_line() {
                    said.push(line.ok());
                }
            }
            Writing::Requests(requests) => {
                requests.buffer().extend_from_slice(bytes);
                let mut unanswered = self.publications.get_mut(&end.connection);
                while let Ok(Some(request)) = requests.next_request() {
                    if let Some(unanswered) = &mut unanswered {
                        **unanswered += 1;
                    }
                    if let [command, _channel, payload] = &request[..]
                        && command.eq_ignore_ascii_case(b"publish")
                    {
                        said.push(text(payload));
                    }
                }
            }
        }
        said
    }

    /// One end of a connection is closed.
    pub fn closed(&mut self, end: &End) {
        self.written.remove(&(end.connection, end.side));
        if end.side == Side::Client {
            self.read.remove(&end.connection);
            self.publications.remove(&end.connection);
        }
    }
}

/// Which side the judge takes an end for.
pub fn side(end: &End) -> judge::Side {
    match end.side {
        _ if end.port == BROKER_PORT => judge::Side::Publisher,
        Side::Client => judge::Side::Client,
        Side::Server => judge::Side::Server,
    }
}

/// What somebody has published, if that is what the broker says.
fn published(reply: &Reply) -> Option<&Bytes> {
    let Reply::Array(words) = reply else { return None };
    match &words[..] {
        [Reply::Bulk(Some(kind)), _channel, Reply::Bulk(Some(payload))] if kind == "message" => Some(payload),
        _ => None,
    }
}

/// Whether it answers a ping of whoever has subscribed.
fn is_pong(reply: &Reply) -> bool {
    matches!(reply, Reply::Array(words) if matches!(&words[..], [Reply::Bulk(Some(kind)), _] if kind == "pong"))
}

fn text(payload: &Bytes) -> Option<String> {
    String::from_utf8(payload.to_vec()).ok()
}
