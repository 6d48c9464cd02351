//! The lines on replication connections: those of the line protocol, and the payloads that pass through a broker. They are
//! decoded from the bytes, without the help of the instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::deployment::{BROKER_PORT, REPLICATION_PORT, SERVER_NAME};
use crate::tasks;
use crate::transport::redis::resp::{Reply, ReplyDecoder, RequestDecoder};
use crate::transport::redis::user_ip_channel;
use squall_env::{Address, TaskSpawner};
use squall_judge::{self as judge, NAME_CHECK, PUBLICATIONS, SUBSCRIPTION};
use squall_netsim::{End, Side};
use squall_protocol::{InstanceName, LineDecoder};

/// Returns true if connections to `port` carry rows.
pub(super) fn is_of_replication(port: u16) -> bool {
    port == REPLICATION_PORT || port == BROKER_PORT
}

/// Returns the judge's name for the other end of a connection that is being opened. The connections of an instance to the
/// broker are alike until the first commands: the task that opens the connection makes the difference.
pub(super) fn target(to: &Address) -> InstanceName {
    if to.port != BROKER_PORT {
        return Arc::clone(&to.host).into();
    }
    let target = match TaskSpawner::current_task() {
        Some(tasks::STAY_SUBSCRIBED) => SUBSCRIPTION,
        Some(tasks::KEEP_CHECKING_NAME) => NAME_CHECK,
        _ => PUBLICATIONS,
    };
    target.into()
}

/// The decoders of both directions of every connection.
#[derive(Default)]
pub(super) struct Wire {
    /// The bytes that each client end has read.
    read: BTreeMap<u64, Reading>,
    /// The bytes that each end has written, except those of the broker: it repeats what instances have written.
    written: BTreeMap<(u64, Side), Writing>,
    /// The number of unanswered requests on each connection on which an instance publishes.
    publications: BTreeMap<u64, usize>,
}

enum Reading {
    Lines(LineDecoder),
    Replies(ReplyDecoder),
}

enum Writing {
    Lines(LineDecoder),
    Requests(RequestDecoder),
}

/// The content that a client end has read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// The whole lines that are text.
    pub lines: Vec<String>,
    /// The number of whole lines, including those that are not text.
    pub count: u64,
    /// True if the broker has answered every request, on a connection on which an instance publishes. A request of which
    /// only a part was written is not answered: the instance goes on waiting, for the answer to the whole pipeline (seed 129
    /// of `redis_swarm`, where the rest of a long row never left).
    pub is_answered: bool,
    /// True if the broker has answered a ping on a subscription.
    pub has_pong: bool,
}

impl Wire {
    /// Registers a connection attempt, which may be one to the broker.
    pub(super) fn connecting(&mut self, attempt: u64, target: &InstanceName) {
        if target.as_str() == PUBLICATIONS {
            self.publications.insert(attempt, 0);
        }
    }

    /// Decodes bytes that a client end has read.
    pub(super) fn read(&mut self, end: &End, bytes: &[u8]) -> Read {
        let mut read = Read::default();
        let reading = self.read.entry(end.connection).or_insert_with(|| match end.port {
            BROKER_PORT => Reading::Replies(ReplyDecoder::default()),
            _ => Reading::Lines(LineDecoder::default()),
        });
        match reading {
            Reading::Lines(lines) => {
                lines.extend(bytes);
                while let Some(line) = lines.next_line() {
                    read.count += 1;
                    read.lines.extend(line.ok());
                }
            }
            Reading::Replies(replies) => {
                replies.extend(bytes);
                let mut unanswered = self.publications.get_mut(&end.connection);
                let written = self.written.get(&(end.connection, end.side));
                let is_writing = matches!(written, Some(Writing::Requests(requests)) if requests.is_within_request());
                while let Some(reply) = replies.next_reply() {
                    if let Some(unanswered) = &mut unanswered {
                        **unanswered = unanswered.saturating_sub(1);
                        // The answer to the password does not count.
                        read.is_answered = **unanswered == 0 && !is_writing && reply != Reply::Simple("OK".into());
                    } else if let Some(payload) = published(&reply) {
                        read.count += 1;
                        read.lines.extend(text(payload));
                    } else {
                        read.has_pong |= is_pong(&reply);
                    }
                }
            }
        }
        read
    }

    /// Decodes bytes that an end has written, into lines. A line that is not text is none.
    pub(super) fn written(&mut self, end: &End, bytes: &[u8]) -> Vec<Option<String>> {
        let mut written = Vec::new();
        if (end.port, end.side) == (BROKER_PORT, Side::Server) {
            return written;
        }
        let writing = self.written.entry((end.connection, end.side)).or_insert_with(|| match end.port {
            BROKER_PORT => Writing::Requests(RequestDecoder::default()),
            _ => Writing::Lines(LineDecoder::default()),
        });
        match writing {
            Writing::Lines(lines) => {
                lines.extend(bytes);
                while let Some(line) = lines.next_line() {
                    written.push(line.ok());
                }
            }
            Writing::Requests(requests) => {
                requests.buffer().extend_from_slice(bytes);
                let mut unanswered = self.publications.get_mut(&end.connection);
                while let Ok(Some(request)) = requests.next_request() {
                    if let Some(unanswered) = &mut unanswered {
                        **unanswered += 1;
                    }
                    if let [command, channel, payload] = &request[..]
                        && command.eq_ignore_ascii_case(b"publish")
                        && carries_commands(channel)
                    {
                        written.push(text(payload));
                    }
                }
            }
        }
        written
    }

    /// Forgets an end of a connection that is closed.
    pub(super) fn closed(&mut self, end: &End) {
        self.written.remove(&(end.connection, end.side));
        if end.side == Side::Client {
            self.read.remove(&end.connection);
            self.publications.remove(&end.connection);
        }
    }
}

/// Returns the role that an end has for the judge.
pub(super) fn role(end: &End) -> judge::Role {
    match end.side {
        _ if end.port == BROKER_PORT => judge::Role::Publisher,
        Side::Client => judge::Role::Client,
        Side::Server => judge::Role::Server,
    }
}

/// Returns the payload of a reply that delivers a published message.
fn published(reply: &Reply) -> Option<&Bytes> {
    let Reply::Array(words) = reply else { return None };
    match &words[..] {
        [Reply::Bulk(Some(kind)), Reply::Bulk(Some(channel)), Reply::Bulk(Some(payload))]
            if kind == "message" && carries_commands(channel) =>
        {
            Some(payload)
        }
        _ => None,
    }
}

/// Returns true if commands are published on `channel`, and not the numbers by which an instance hears itself.
fn carries_commands(channel: &Bytes) -> bool {
    *channel == SERVER_NAME || *channel == user_ip_channel(SERVER_NAME)
}

/// Returns true if the reply answers a ping on a subscription.
fn is_pong(reply: &Reply) -> bool {
    matches!(reply, Reply::Array(words) if matches!(&words[..], [Reply::Bulk(Some(kind)), _] if kind == "pong"))
}

fn text(payload: &Bytes) -> Option<String> {
    String::from_utf8(payload.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns true if the answer to the first request answers all that was written, `second` included.
    fn is_answered_with(second: &[u8]) -> bool {
        let (host, peer) = ("worker1".into(), "broker".into());
        let end = End { connection: 1, side: Side::Client, host, boot: 1, peer, port: BROKER_PORT };
        let mut wire = Wire::default();
        wire.connecting(1, &PUBLICATIONS.into());
        wire.written(&end, b"*3\r\n$7\r\nPUBLISH\r\n$11\r\nsquall.test\r\n$4\r\nPING\r\n");
        wire.written(&end, second);
        wire.read(&end, b":1\r\n").is_answered
    }

    #[test]
    fn a_request_that_is_written_in_part_or_as_a_whole_is_unanswered() {
        assert!(is_answered_with(b""));
        assert!(!is_answered_with(b"*3\r\n$7\r\nPUBLISH\r\n$11\r\nsquall.test\r\n$4\r\nPING\r\n"));
        assert!(!is_answered_with(b"*3\r\n$7\r\nPUBLISH\r\n$11\r\nsquall.test\r\n$66000\r\nRDATA"));
        assert!(!is_answered_with(b"*3\r\n"));
    }
}
