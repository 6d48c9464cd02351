//! The witnesses of one boot of one instance: its consumer, its observer, and its clients' reports.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::recorder::Recorder;
use crate::limits::LimitHit;
use crate::observer::InstanceEvent;
use crate::observer::Observer;
use crate::replication::Consumer;
use crate::tasks;
use squall_env::{TaskKind, TaskObserver};
use squall_judge::{self as judge, Device, Observation, RequestFailure, Task};
use squall_protocol::rows::{Row, TypingRow, typing};
use squall_protocol::{Cached, Command, InstanceName, StreamName, Token};

/// The consumer that the simulator registers on one boot of one instance. It is silent once the boot is over: the work of
/// a killed process's drop handlers is not observed.
#[derive(Clone)]
pub(super) struct Witness {
    instance: InstanceName,
    boot: u64,
    is_silenced: Rc<Cell<bool>>,
    recorder: Rc<Recorder>,
}

impl Witness {
    /// Creates a witness of a boot of `instance`. It is silent while `is_silenced` is set.
    pub(super) fn new(instance: InstanceName, boot: u64, is_silenced: Rc<Cell<bool>>, recorder: Rc<Recorder>) -> Self {
        Witness { instance, boot, is_silenced, recorder }
    }

    /// Reports a change that the typing handler of this instance, the stream's writer, has made.
    pub(super) fn typing_changed(&self, token: Token, row: &TypingRow) {
        let row = Row::Typing(row.clone());
        let (stream, writer, boot) = (typing::NAME.into(), self.instance.clone(), self.boot);
        self.report(|_| Observation::Changed { stream, writer, boot, token, row });
    }

    /// Reports that a client has begun to sync with this process.
    pub(super) fn sync_began(&self, device: &Device) {
        let boot = self.boot;
        let device = device.clone();
        self.report(|instance| Observation::SyncBegan { instance, boot, device });
    }

    /// Reports that the client has ended its sync.
    pub(super) fn sync_ended(&self, device: &Device) {
        let boot = self.boot;
        let device = device.clone();
        self.report(|instance| Observation::SyncEnded { instance, boot, device });
    }

    /// Reports that a client reads `what`. Returns the number of the read.
    pub(super) fn read_started(&self, what: Cached) -> u64 {
        let read = self.recorder.next_read();
        self.report(|instance| Observation::ReadStarted { instance, read, what });
        read
    }

    /// Reports the result of the read numbered `read`.
    pub(super) fn read_returned(&self, read: u64, version: Option<Token>) {
        self.report(|instance| Observation::ReadReturned { instance, read, version });
    }

    /// Reports that a write was acknowledged to a client: `writer` changed `what` under `token`.
    pub(super) fn write_acked(&self, what: Cached, writer: &InstanceName, token: Token) {
        let writer = writer.clone();
        self.report(|instance| Observation::WriteAcked { instance, what, writer, token });
    }

    /// Reports that a message to the devices of `clients` was acknowledged.
    pub(super) fn messages_acked(&self, clients: Vec<judge::Client>, message_id: String) {
        self.report(|instance| Observation::MessagesAcked { instance, clients, message_id });
    }

    /// Reports that a user's receipts of these rooms, sent together, were acknowledged.
    pub(super) fn receipts_acked(&self, user_id: String, room_ids: Vec<String>) {
        self.report(|instance| Observation::ReceiptsAcked { instance, user_id, room_ids });
    }

    /// Reports that a client asks to set the presence of a device.
    pub(super) fn presence_asked(
        &self,
        request: u64,
        device: Device,
        state: &str,
        is_sync: bool,
        status: Option<String>,
    ) {
        let state = state.to_owned();
        self.report(|instance| Observation::PresenceAsked { instance, request, device, state, is_sync, status });
    }

    /// Reports that the request numbered `request` to set a presence was acknowledged.
    pub(super) fn presence_set(&self, request: u64) {
        self.report(|instance| Observation::PresenceSet { instance, request });
    }

    /// Reports that the instance is about to send a command to every other one.
    pub(super) fn broadcast_began(&self, command: &'static str, words: &str) {
        let words = words.to_owned();
        self.report(|instance| Observation::Began { instance, command, words });
    }

    /// Reports that a request of a client failed because the wait for `writer`'s position timed out.
    pub(super) fn wait_timed_out(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let stream = stream.clone();
        let writer = writer.clone();
        self.report(|instance| Observation::WaitTimedOut { instance, stream, writer, position });
    }

    /// Reports that a correct request of a client failed, `after_ms` after it began.
    pub(super) fn request_failed(&self, what: &'static str, after_ms: u64, failure: RequestFailure) {
        self.report(|instance| Observation::RequestFailed { instance, what, after_ms, failure });
    }

    /// Reports if a client sees its write `what` of `stream`, which `writer` has acknowledged `after_ms` after it was asked.
    pub(super) fn read_back(
        &self,
        stream: &'static str,
        writer: InstanceName,
        what: String,
        after_ms: u64,
        is_seen: bool,
    ) {
        let stream = stream.into();
        self.report(|instance| Observation::ReadBack { instance, stream, writer, what, after_ms, is_seen });
    }

    /// Reports that a user asks to type in a room, through an instance that is not the writer.
    pub(super) fn typing_asked(&self, room_id: &str, user_id: &str) {
        let (room_id, user_id) = (room_id.to_owned(), user_id.to_owned());
        self.report(|_| Observation::TypingAsked { room_id, user_id });
    }

    /// Reports that a user types from now on, or has stopped, by a request that began `after_ms` ago.
    pub(super) fn typing_set(&self, room_id: &str, user_id: &str, timeout: Option<Duration>, after_ms: u64) {
        let (room_id, user_id) = (room_id.to_owned(), user_id.to_owned());
        let timeout_ms = timeout.map(|timeout| timeout.as_millis() as u64);
        self.report(|_| Observation::TypingSet { room_id, user_id, timeout_ms, after_ms });
    }

    fn report(&self, observation: impl FnOnce(InstanceName) -> Observation) {
        if !self.is_silenced.get() {
            self.recorder.observe(&observation(self.instance.clone()));
        }
    }
}

impl Consumer for Witness {
    fn following(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let stream = stream.clone();
        let writer = writer.clone();
        self.report(|instance| Observation::Following { instance, stream, writer, position });
    }

    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.recorder.count_applied(rows.len() as u64);
        let stream = stream.clone();
        let writer = writer.clone();
        let rows = rows.to_vec();
        self.report(|instance| Observation::Applied { instance, stream, writer, token, rows });
    }

    fn positioned(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let stream = stream.clone();
        let writer = writer.clone();
        self.report(|instance| Observation::Positioned { instance, stream, writer, position });
    }

    fn reset(&self, stream: &StreamName, writer: &InstanceName) {
        let stream = stream.clone();
        let writer = writer.clone();
        self.report(|instance| Observation::Reset { instance, stream, writer, position: Token(0) });
    }

    fn command_received(&self, command: &Command) {
        let Command::RemoteServerUp(words) = command else { return };
        let (command, words) = (command.name(), words.clone());
        self.report(|instance| Observation::Received { instance, command, words });
    }
}

/// The observer of one boot of one instance: it sees the instance's tasks and the events that the instance reports.
pub(super) struct StackWitness {
    witness: Witness,
    /// The largest number of running tasks of each kind that was reported.
    reported: RefCell<BTreeMap<TaskKind, u64>>,
}

impl StackWitness {
    /// Creates an observer of the same boot as `witness`.
    pub(super) fn new(witness: Witness) -> Self {
        StackWitness { witness, reported: RefCell::default() }
    }
}

impl TaskObserver for StackWitness {
    /// Reports each doubling, which is enough to notice that there is no bound.
    fn task_started(&self, kind: TaskKind, running: u64) {
        let mut reported = self.reported.borrow_mut();
        let most = reported.entry(kind).or_default();
        if running >= (2 * *most).max(1) {
            *most = running;
            let task = Task { label: kind.label(), per_request: tasks::PER_REQUEST.contains(&kind) };
            self.witness.report(|instance| Observation::Tasks { instance, task, running });
        }
    }
}

impl Observer for StackWitness {
    fn event(&self, event: InstanceEvent<'_>) {
        if let InstanceEvent::Row { stream, .. } | InstanceEvent::UnknownStream { stream } = event {
            let stream = stream.clone();
            self.witness.report(|instance| Observation::Reported { instance, stream });
        }
    }

    fn limit_hit(&self, limit: LimitHit) {
        self.witness.report(|instance| Observation::LimitHit { instance, limit: limit.name() });
    }

    fn process_expired(&self, _users: usize) {
        self.witness.report(|instance| Observation::Expired { instance });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_judge::invariants::queues_bounded::TASKS_MAX;
    use squall_judge::{Judge, Topology};

    #[test]
    fn every_limit_that_an_instance_hits_is_counted_by_its_name() {
        let recorder = Recorder::new(Judge::new(Topology::default()), None);
        let witness = StackWitness::new(Witness::new("worker".into(), 1, Rc::default(), Rc::clone(&recorder)));
        let known = recorder.judge().marks().len();
        for limit in LimitHit::ALL {
            witness.limit_hit(*limit);
            assert_eq!(recorder.judge().marks().get(limit.name()), Some(&1));
        }
        assert_eq!(recorder.judge().marks().len(), known, "each of them is listed from the beginning");
    }

    #[test]
    fn the_judge_bounds_the_tasks_of_replication_and_not_those_of_requests() {
        let is_too_many = |kind| {
            let recorder = Recorder::new(Judge::new(Topology::default()), None);
            let witness = Witness::new("worker".into(), 1, Rc::default(), Rc::clone(&recorder));
            StackWitness::new(witness).task_started(kind, TASKS_MAX + 1);
            recorder.judge().has_seen("queues_bounded/too_many_tasks")
        };
        assert!(is_too_many(tasks::ON_RDATA));
        assert!(!is_too_many(tasks::HTTP_REQUEST));
    }
}
