//! Marks: how often a run came to the situations that matter.
//!
//! A storm that never reaches them proves nothing, however many seeds pass. Every mark is counted from observations,
//! and is there from the beginning, so that one that was never reached can be seen.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::{Client, Moment, Observation};
use super::reads::changed_by;
use super::set_up::SetUps;
use super::topology::{Feed, Topology};
use crate::caches::Cached;
use crate::protocol::{InstanceName, LINE_BYTES_MAX, StreamName, Token};
use crate::streams::{EventsRow, ROWS_TARGET, Row, account_data, events, receipts};
use crate::sync::SyncToken;

/// An in-memory stream's follower was told that the writer began anew.
const MEMORY_RESET: &str = "memory_reset";
/// A `state-all` row was applied in the place of a room's state rows.
const STATE_ALL_APPLIED: &str = "state_all_applied";
/// A connection was set up.
const SET_UP: &str = "set_up";
/// A position was announced that the follower had not reached: it has to catch up.
const ANNOUNCED_AHEAD: &str = "announced_ahead";
/// A row took effect after one of the same writer and stream with a higher token.
const OUT_OF_ORDER_COMMIT: &str = "out_of_order_commit";
/// Rows took effect when nobody waited for them any more.
const LATE_COMMIT: &str = "late_commit";
/// Rows of an earlier process were refused.
const FENCED_COMMIT: &str = "fenced_commit";
/// Rows took effect, and their writer was told an error.
const LOST_ACKNOWLEDGEMENT: &str = "lost_acknowledgement";
/// A client took its token to another instance than the one that had given it.
const CLIENT_MOVED: &str = "client_moved";
/// A client came with a token that the instance had not reached, and had to wait.
const SYNC_WAITED_FOR_TOKEN: &str = "sync_waited_for_token";
/// A client was given a token in which some writer is ahead of others.
const VECTOR_TOKEN: &str = "vector_token";

/// Rows that change something came to an instance while a client was waiting to read it there: the load was overtaken.
const CACHE_FILL_RACED: &str = "cache_fill_raced";
/// A client was told that what another instance wrote is done, at the very moment at which its own instance's position
/// passed that: it had to wait.
const WAIT_THAT_WAITED: &str = "wait_that_waited";

/// A row that is too long for a line reached a follower.
const OVERSIZED_ROW: &str = "oversized_row";
/// What a follower lacked when a position was announced was more than one answer brings.
const CATCH_UP_LIMITED: &str = "catch_up_limited";
/// One end of a connection was gone, and the other one was not told.
const HALF_OPEN: &str = "half_open";
/// A process was taken for dead because it was silent for too long.
const EXPIRY: &str = "expiry";
/// The broker dropped a subscriber for whom too much waited. Only where there is a broker.
pub const OUTPUT_LIMIT: &str = "output_limit";

/// The streams that clients have written through instances that do not write them.
const WRITTEN_ELSEWHERE: [&str; 2] = [events::NAME, account_data::NAME];

/// Every mark.
const ALL: [&str; 18] = [
    MEMORY_RESET,
    STATE_ALL_APPLIED,
    SET_UP,
    ANNOUNCED_AHEAD,
    OUT_OF_ORDER_COMMIT,
    LATE_COMMIT,
    FENCED_COMMIT,
    LOST_ACKNOWLEDGEMENT,
    CACHE_FILL_RACED,
    WAIT_THAT_WAITED,
    CLIENT_MOVED,
    SYNC_WAITED_FOR_TOKEN,
    VECTOR_TOKEN,
    OVERSIZED_ROW,
    CATCH_UP_LIMITED,
    HALF_OPEN,
    EXPIRY,
    OUTPUT_LIMIT,
];

/// Counts marks.
pub(super) struct Marks {
    set_ups: SetUps,
    /// What clients wait to be told, and where.
    reads: BTreeMap<u64, (InstanceName, Cached)>,
    /// When a position last moved, and where it was before that moment.
    moved: BTreeMap<Feed, (Moment, Token)>,
    /// Every token committed so far.
    committed: BTreeMap<(StreamName, InstanceName), BTreeSet<Token>>,
    /// The tokens of rows that are too long for a line.
    oversized: BTreeSet<(StreamName, InstanceName, Token)>,
    /// The position announced ahead of each follower, and how many rows it has applied since.
    catching_up: BTreeMap<Feed, (Token, usize)>,
    /// Who answered each client last.
    answered_by: BTreeMap<Client, InstanceName>,
    counts: BTreeMap<&'static str, u64>,
}

impl Marks {
    /// No mark reached yet.
    pub fn new(topology: &Topology) -> Self {
        Marks {
            set_ups: SetUps::new(topology),
            reads: BTreeMap::new(),
            moved: BTreeMap::new(),
            committed: BTreeMap::new(),
            oversized: BTreeSet::new(),
            catching_up: BTreeMap::new(),
            answered_by: BTreeMap::new(),
            counts: ALL.map(|mark| (mark, 0)).into(),
        }
    }

    /// How often each mark was reached.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Counts what this observation reaches.
    pub fn observe(&mut self, at: Moment, observation: &Observation) {
        self.observe_reads(observation);
        self.observe_rows(observation);
        match observation {
            Observation::Applied { instance, stream, writer, .. }
            | Observation::Positioned { instance, stream, writer, .. }
                if WRITTEN_ELSEWHERE.contains(&stream.as_str()) =>
            {
                let feed = Feed::new(instance, stream, writer);
                if self.moved.get(&feed).is_none_or(|(moved, _)| *moved != at) {
                    let before = self.set_ups.position(&feed).unwrap_or_default();
                    self.moved.insert(feed, (at, before));
                }
            }
            Observation::Answered { instance, what, writer, token } if instance != writer => {
                let moved = self.moved.get(&Feed::new(instance, &what.stream().into(), writer));
                if moved.is_some_and(|(moved, before)| *moved == at && before < token) {
                    self.reach(WAIT_THAT_WAITED);
                }
            }
            Observation::Reset { .. } => self.reach(MEMORY_RESET),
            Observation::Committed { stream, writer, token, .. } => {
                let committed = self.committed.entry((stream.clone(), writer.clone())).or_default();
                let is_out_of_order = committed.last().is_some_and(|highest| token < highest);
                committed.insert(*token);
                if is_out_of_order {
                    self.reach(OUT_OF_ORDER_COMMIT);
                }
            }
            Observation::HalfOpened { .. } => self.reach(HALF_OPEN),
            Observation::Expired { .. } => self.reach(EXPIRY),
            Observation::SubscribersDropped { count } => (0..*count).for_each(|_| self.reach(OUTPUT_LIMIT)),
            Observation::LateCommit { .. } => self.reach(LATE_COMMIT),
            Observation::Fenced { .. } => self.reach(FENCED_COMMIT),
            Observation::AcknowledgementLost { .. } => self.reach(LOST_ACKNOWLEDGEMENT),
            Observation::Announced { instance, stream, writer, position, .. } => {
                let held = self.set_ups.position(&Feed::new(instance, stream, writer));
                if held.is_some_and(|held| held < *position) {
                    self.reach(ANNOUNCED_AHEAD);
                    self.catching_up.insert(Feed::new(instance, stream, writer), (*position, 0));
                }
            }
            Observation::SyncAsked { client, instance, since: Some(since) } => {
                if self.answered_by.get(client).is_some_and(|other| other != instance) {
                    self.reach(CLIENT_MOVED);
                }
                if self.is_ahead(since, instance) {
                    self.reach(SYNC_WAITED_FOR_TOKEN);
                }
            }
            Observation::Synced { client, instance, answer, .. } => {
                self.answered_by.insert(client.clone(), instance.clone());
                if !answer.next.events.ahead().is_empty() || !answer.next.receipts.ahead().is_empty() {
                    self.reach(VECTOR_TOKEN);
                }
            }
            _ => {}
        }
        if let Observation::Applied { rows, .. } = observation
            && rows.iter().any(is_state_all)
        {
            self.reach(STATE_ALL_APPLIED);
        }
        if self.set_ups.observe(at, observation).is_some() {
            self.reach(SET_UP);
        }
    }

    fn observe_rows(&mut self, observation: &Observation) {
        match observation {
            // The type is the only part of a row here that outgrows a line.
            Observation::Committed { stream, writer, token, row: Row::AccountData(row) }
                if row.kind.len() > LINE_BYTES_MAX =>
            {
                self.oversized.insert((stream.clone(), writer.clone(), *token));
            }
            Observation::Applied { instance, stream, writer, token, rows } => {
                if stream.as_str() == account_data::NAME
                    && self.oversized.contains(&(stream.clone(), writer.clone(), *token))
                {
                    self.reach(OVERSIZED_ROW);
                }
                let Some((upto, count)) = self.catching_up.get_mut(&Feed::new(instance, stream, writer)) else {
                    return;
                };
                if token <= upto {
                    *count += rows.len();
                }
            }
            Observation::Positioned { instance, stream, writer, .. } => {
                let caught_up = self.catching_up.remove(&Feed::new(instance, stream, writer));
                if caught_up.is_some_and(|(_, count)| count > ROWS_TARGET) {
                    self.reach(CATCH_UP_LIMITED);
                }
            }
            Observation::Stopped { instance, .. } => self.catching_up.retain(|feed, _| feed.instance != *instance),
            _ => {}
        }
    }

    fn observe_reads(&mut self, observation: &Observation) {
        match observation {
            Observation::Asked { instance, read, what } => {
                self.reads.insert(*read, (instance.clone(), what.clone()));
            }
            Observation::Told { read, .. } => {
                self.reads.remove(read);
            }
            Observation::Stopped { instance, .. } => self.reads.retain(|_, (at, _)| at != instance),
            Observation::Applied { instance, rows, .. } if self.reads.values().any(|(at, _)| at == instance) => {
                let changed: BTreeSet<Cached> = rows.iter().filter_map(changed_by).collect();
                let waiting = self.reads.len();
                // A read counts once.
                self.reads.retain(|_, (at, what)| at != instance || !changed.contains(what));
                let raced = waiting - self.reads.len();
                *self.counts.entry(CACHE_FILL_RACED).or_default() += raced as u64;
            }
            _ => {}
        }
    }

    /// Whether `token` is past rows of events or receipts that have yet to arrive at `instance`.
    fn is_ahead(&self, token: &SyncToken, instance: &InstanceName) -> bool {
        self.committed.iter().any(|((stream, writer), committed)| {
            let position = match stream.as_str() {
                events::NAME => token.events.position_of(writer),
                receipts::NAME => token.receipts.position_of(writer),
                _ => return false,
            };
            let held = self.set_ups.position(&Feed::new(instance, stream, writer));
            held.is_some_and(|held| held < position && committed.range(held.next()..=position).next().is_some())
        })
    }

    fn reach(&mut self, mark: &'static str) {
        *self.counts.entry(mark).or_default() += 1;
    }
}

fn is_state_all(row: &Row) -> bool {
    matches!(row, Row::Events(EventsRow::StateAll(_)))
}
