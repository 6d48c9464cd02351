//! Marks: counts of the situations that matter.
//!
//! A storm that never reaches them proves nothing, however many seeds pass. Marks are counted from observations. Every
//! mark is listed from the beginning, so that one that was never reached can be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

use super::disturbances::CONNECTION_REFUSED;
use super::due::Position;
use super::missed_bursts::MissedBursts;
use super::names::{Follower, Followers, Source, Table};
use super::observation::{Client, Device, Observation, SimTime};
use super::reads::changed_by;
use super::scene::Scene;
use super::topology::Topology;
use squall_protocol::rows::{EventsRow, ROWS_TARGET, Row, account_data, events, presence, receipts, to_device};
use squall_protocol::{Cached, InstanceName, LINE_BYTES_MAX, SyncToken, Token};

/// A follower of a stream in memory learnt that the writer had restarted.
const MEMORY_RESET: &str = "memory_reset";
/// A `state-all` row was applied in place of a room's state rows.
const STATE_ALL_APPLIED: &str = "state_all_applied";
/// A connection was set up.
const SET_UP: &str = "set_up";
/// A position was announced that the follower had not reached: it has to catch up.
const ANNOUNCED_AHEAD: &str = "announced_ahead";
/// A row took effect after one of the same writer and stream with a higher token.
const OUT_OF_ORDER_COMMIT: &str = "out_of_order_commit";
/// Rows took effect after their request had ended.
const LATE_COMMIT: &str = "late_commit";
/// Rows of an earlier process were refused.
const FENCED_COMMIT: &str = "fenced_commit";
/// Rows took effect, and their writer got an error.
const LOST_ACKNOWLEDGEMENT: &str = "lost_acknowledgement";
/// A client took its token to another instance.
const CLIENT_MOVED: &str = "client_moved";
/// A client had to wait, because the instance had not reached its token.
const SYNC_WAITED_FOR_TOKEN: &str = "sync_waited_for_token";
/// A client got a token in which one writer is ahead of others.
const VECTOR_TOKEN: &str = "vector_token";

/// Rows that change a value arrived while a client was reading it: the load was overtaken.
const CACHE_FILL_RACED: &str = "cache_fill_raced";
/// A write by another instance was acknowledged in the very millisecond in which the position of the client's own instance
/// passed it: the client had to wait.
const WAIT_THAT_WAITED: &str = "wait_that_waited";

/// A row too long for a line reached a follower.
const OVERSIZED_ROW: &str = "oversized_row";
/// A follower lacked more rows than one answer returns.
const CATCH_UP_LIMITED: &str = "catch_up_limited";
/// A follower lacked more rows than one answer returns, where that is fewer than in production.
const SMALL_CATCH_UP_LIMITED: &str = "small_catch_up_limited";
/// One end of a connection was gone, and the other one was not notified.
const HALF_OPEN: &str = "half_open";
/// A silent process was taken for dead.
const EXPIRY: &str = "expiry";
/// Two devices of a user were set to different states, one shortly after the other.
const PRESENCE_COMBINED: &str = "presence_combined";
/// Receipts of several rooms were acknowledged at once.
const RECEIPTS_OF_ROOMS: &str = "receipts_of_rooms";
/// Rows were committed after more than ten minutes without any, but for those of presence, which time-outs write.
const QUIET_GAP: &str = "quiet_gap";
/// More rows than one answer returns were committed at once, while a follower had lost its connection.
const BURST_MISSED: &str = "burst_missed";
/// The same, for messages to devices.
const MESSAGES_MISSED: &str = "messages_missed";
/// An outlier was sent again, as an ordinary event.
const FORMER_OUTLIER: &str = "former_outlier";
/// An event that changes state was acknowledged twice, to two requests.
const EVENT_SENT_AGAIN: &str = "event_sent_again";
/// Time after which a gap is quiet.
const QUIET_MS: u64 = 600_000;
/// Time after which a state that was set counts no more, unless the device syncs.
const SET_MS: u64 = 30_000;
/// A writer was added to the deployment while it ran.
const WRITER_ADDED: &str = "writer_added";
/// The broker dropped a client for exceeding the output-buffer limit. Only with a broker.
pub(crate) const OUTPUT_LIMIT: &str = "output_limit";
/// A publisher waited for the broker's replies with more to publish. Only with a broker.
pub(crate) const REPLIES_AWAITED: &str = "replies_awaited";

/// The streams that clients write through instances that are not their writers.
const WRITTEN_ELSEWHERE: [&str; 2] = [events::NAME, account_data::NAME];

/// The limits of an instance that it reports as hit.
const LIMITS: [&str; 9] = [
    "outbox_overflowed",
    "follower_queue_overflowed",
    "batch_overflowed",
    REPLIES_AWAITED,
    "answer_evicted",
    "answer_expired",
    "cached_value_evicted",
    "typing_room_dropped",
    CONNECTION_REFUSED,
];

/// Every other mark.
const ALL: [&str; 27] = [
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
    SMALL_CATCH_UP_LIMITED,
    HALF_OPEN,
    EXPIRY,
    PRESENCE_COMBINED,
    RECEIPTS_OF_ROOMS,
    QUIET_GAP,
    BURST_MISSED,
    MESSAGES_MISSED,
    FORMER_OUTLIER,
    EVENT_SENT_AGAIN,
    WRITER_ADDED,
    OUTPUT_LIMIT,
];

/// Counts marks.
pub(super) struct Marks {
    /// The number of rows that one query aims to return.
    rows_per_query: usize,
    /// The unfinished reads, with their instances.
    reads: BTreeMap<u64, (InstanceName, Cached)>,
    /// The time at which a position last moved, and the position before.
    moved: Followers<(SimTime, Token)>,
    /// The newest change of state that each writer's client was told of.
    state_acked: BTreeMap<InstanceName, Token>,
    /// The committed tokens.
    committed: Table<Source, BTreeSet<Token>>,
    /// The tokens of rows too long for a line.
    oversized: BTreeSet<(Source, Token)>,
    /// The position announced ahead of each follower, and the rows that it has applied since.
    catching_up: Followers<(Token, usize)>,
    /// The instance that last answered each client.
    answered_by: BTreeMap<Client, InstanceName>,
    /// The requests to set a presence.
    presence_asked: BTreeMap<u64, (Device, String)>,
    /// The state that was last set on each device, and its time.
    presence_set: BTreeMap<Device, (String, SimTime)>,
    missed_bursts: MissedBursts,
    /// The time of the last row that was committed, of any stream but presence.
    last_row: Option<SimTime>,
    counts: BTreeMap<&'static str, u64>,
}

impl Marks {
    /// Returns marks of which none is reached yet.
    pub(crate) fn new(topology: &Topology) -> Self {
        Marks {
            rows_per_query: topology.rows_per_query(),
            reads: BTreeMap::new(),
            moved: Followers::default(),
            state_acked: BTreeMap::new(),
            committed: Table::default(),
            oversized: BTreeSet::new(),
            catching_up: Followers::default(),
            answered_by: BTreeMap::new(),
            presence_asked: BTreeMap::new(),
            presence_set: BTreeMap::new(),
            missed_bursts: MissedBursts::default(),
            last_row: None,
            counts: ALL.into_iter().chain(LIMITS).map(|mark| (mark, 0)).collect(),
        }
    }

    /// Returns the number of times that each mark was reached.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Counts the events that were sent more than once.
    fn observe_repeated(&mut self, observation: &Observation) {
        match observation {
            Observation::ReadBack { stream, .. } if stream.as_str() == events::NAME => self.reach(FORMER_OUTLIER),
            Observation::WriteAcked { what: Cached::State { .. }, writer, token, .. }
                if self.state_acked.insert(writer.clone(), *token) == Some(*token) =>
            {
                self.reach(EVENT_SENT_AGAIN);
            }
            _ => {}
        }
    }

    /// Counts the marks that this observation reaches.
    pub(crate) fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) {
        self.observe_reads(observation);
        self.observe_rows(observation, scene);
        self.observe_bursts(at, observation);
        self.observe_repeated(observation);
        match observation {
            Observation::Applied { stream, .. } | Observation::Positioned { stream, .. }
                if WRITTEN_ELSEWHERE.contains(&stream.as_str())
                    && self.moved.get(scene.follower()).is_none_or(|(moved, _)| *moved != at) =>
            {
                self.moved.insert(scene.follower(), (at, scene.held().unwrap_or_default()));
            }
            Observation::WriteAcked { instance, writer, token, .. } if instance != writer => {
                let moved = self.moved.get(scene.follower());
                if moved.is_some_and(|(moved, before)| *moved == at && before < token) {
                    self.reach(WAIT_THAT_WAITED);
                }
            }
            Observation::Reset { .. } => self.reach(MEMORY_RESET),
            Observation::Committed { token, .. } => {
                let committed = self.committed.or_default(scene.source());
                let is_out_of_order = committed.last().is_some_and(|highest| token < highest);
                committed.insert(*token);
                if is_out_of_order {
                    self.reach(OUT_OF_ORDER_COMMIT);
                }
            }
            Observation::PresenceAsked { request, device, state, .. } => {
                self.presence_asked.insert(*request, (device.clone(), state.clone()));
            }
            Observation::PresenceSet { request, .. } => self.observe_presence(at, *request),
            Observation::ReceiptsAcked { room_ids, .. } if room_ids.len() > 1 => self.reach(RECEIPTS_OF_ROOMS),
            Observation::HalfOpened { .. } => self.reach(HALF_OPEN),
            Observation::Expired { .. } => self.reach(EXPIRY),
            Observation::LimitHit { limit, .. } => self.reach(limit),
            Observation::SubscribersDropped { count } => *self.counts.entry(OUTPUT_LIMIT).or_default() += count,
            Observation::WriterAdded { .. } => self.reach(WRITER_ADDED),
            Observation::LateCommit { .. } => self.reach(LATE_COMMIT),
            Observation::Fenced { .. } => self.reach(FENCED_COMMIT),
            Observation::AcknowledgementLost { .. } => self.reach(LOST_ACKNOWLEDGEMENT),
            Observation::Announced { position, .. } if scene.held().is_some_and(|held| held < *position) => {
                self.reach(ANNOUNCED_AHEAD);
                self.catching_up.insert(scene.follower(), (*position, 0));
            }
            Observation::SyncAsked { client, instance, since: Some(since) } => {
                if self.answered_by.get(client).is_some_and(|other| other != instance) {
                    self.reach(CLIENT_MOVED);
                }
                if self.is_ahead(since, scene) {
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
        if scene.set_up().is_some() {
            self.reach(SET_UP);
        }
    }

    fn observe_bursts(&mut self, at: SimTime, observation: &Observation) {
        if let Some(stream) = self.missed_bursts.observe(at, observation) {
            self.reach(BURST_MISSED);
            if stream.as_str() == to_device::NAME {
                self.reach(MESSAGES_MISSED);
            }
        }
        if matches!(observation, Observation::Calm) {
            self.last_row = None; // the calm is as quiet as it is long
        }
        if let Observation::Committed { stream, .. } = observation
            && stream.as_str() != presence::NAME
        {
            let last = self.last_row.replace(at);
            if last.is_some_and(|last| at.ms_since(last) > QUIET_MS) {
                self.reach(QUIET_GAP);
            }
        }
    }

    fn observe_presence(&mut self, at: SimTime, request: u64) {
        let Some((device, state)) = self.presence_asked.remove(&request) else { return };
        let differs = |(other, (set, set_at)): (&Device, &(String, SimTime))| {
            other.user == device.user && *other != device && *set != state && at.ms_since(*set_at) < SET_MS
        };
        if self.presence_set.iter().any(differs) {
            self.reach(PRESENCE_COMBINED);
        }
        self.presence_set.insert(device, (state, at));
    }

    fn observe_rows(&mut self, observation: &Observation, scene: &Scene) {
        match observation {
            // The storm makes rows long by their type alone.
            Observation::Committed { token, row: Row::AccountData(row), .. } if row.kind.len() > LINE_BYTES_MAX => {
                self.oversized.insert((scene.source(), *token));
            }
            Observation::Applied { token, rows, .. } => {
                if self.oversized.contains(&(scene.source(), *token)) {
                    self.reach(OVERSIZED_ROW);
                }
                let Some((upto, count)) = self.catching_up.get_mut(scene.follower()) else { return };
                if token <= upto {
                    *count += rows.len();
                }
            }
            Observation::Positioned { .. } => {
                let caught_up = self.catching_up.remove(scene.follower());
                let count = caught_up.map_or(0, |(_, count)| count);
                if count > self.rows_per_query {
                    self.reach(CATCH_UP_LIMITED);
                    if self.rows_per_query < ROWS_TARGET {
                        self.reach(SMALL_CATCH_UP_LIMITED);
                    }
                }
            }
            Observation::Stopped { .. } => self.catching_up.forget(scene.instance()),
            _ => {}
        }
    }

    fn observe_reads(&mut self, observation: &Observation) {
        match observation {
            Observation::ReadStarted { instance, read, what } => {
                self.reads.insert(*read, (instance.clone(), what.clone()));
            }
            Observation::ReadReturned { read, .. } => {
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

    /// Returns true if `token` is past rows of events or receipts that have yet to arrive at the instance.
    fn is_ahead(&self, token: &SyncToken, scene: &Scene) -> bool {
        self.committed.iter().any(|(source, committed)| {
            let stream = scene.names.stream_name_of(source).as_str();
            if ![events::NAME, receipts::NAME].contains(&stream) {
                return false;
            }
            let Some(position) = Position::in_stream(token, stream) else { return false };
            let position = position.of_writer(scene.names.name_of(scene.names.writer_of(source)));
            let held = scene.position(Follower { source, instance: scene.instance() });
            held.is_some_and(|held| {
                held < position && committed.range((Excluded(held), Included(position))).next().is_some()
            })
        })
    }

    fn reach(&mut self, mark: &'static str) {
        *self.counts.entry(mark).or_default() += 1;
    }
}

fn is_state_all(row: &Row) -> bool {
    matches!(row, Row::Events(EventsRow::StateAll(_)))
}
