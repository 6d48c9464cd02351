//! No tight reconnect loop.
//!
//! However long set-up keeps failing, the connection attempts of an instance stay within the back-off's own envelope: the
//! delay doubles from `DELAY_MIN_MS` to `DELAY_MAX_MS`, and is reset only once a connection is set up, that is, once
//! every stream of the target has announced its position and is caught up. Resetting it when TCP connects turns one bad
//! row in the backlog into hundreds of attempts a minute (Synapse #4749, and again since #7185).
//!
//! No false alarm: a new process starts a new envelope, because it has no memory of the old delay. Jitter is taken at its
//! lowest. A connection counts as set up at the earliest moment at which it can be (`set_up.rs`). An instance has two
//! connections to a broker, each with a back-off of its own; they count as two targets.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::set_up::Pair;
use crate::topology::Topology;
use squall_protocol::InstanceName;

/// First delay of the back-off, before jitter.
const DELAY_MIN_MS: u64 = 100;
/// Longest delay of the back-off, before jitter.
const DELAY_MAX_MS: u64 = 5_000;
/// Least part of a delay that jitter leaves: it is ±12 %.
const JITTER_LEAST_PER_CENT: u64 = 88;
/// Milliseconds by which a timer may seem to fire early: observed times are rounded to milliseconds.
const TIMER_TOLERANCE_MS: u64 = 1;

/// A connection attempt that came too early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A connection was attempted before the back-off delay had passed.
    #[error(
        "{instance} tried {target} again after {waited_ms} ms; its back-off was at least {least_ms} ms, \
         because {ended} attempts have ended since a connection was last set up"
    )]
    TooSoon { instance: InstanceName, target: InstanceName, ended: u32, waited_ms: u64, least_ms: u64 },
    /// A connection was attempted while the one before was still open.
    #[error("{instance} tried {target} while its previous connection was still open")]
    Overlapping { instance: InstanceName, target: InstanceName },
}

/// Checks every connection attempt against the envelope of its instance and target.
#[derive(Default)]
pub struct NoTightReconnect {
    envelopes: BTreeMap<Pair, Envelope>,
    judged: u64,
}

/// The attempts of one process to connect to one target.
#[derive(Default)]
struct Envelope {
    /// The attempt that has not ended.
    open: Option<u64>,
    /// The time at which the last attempt failed or its connection was closed.
    ended_at: SimTime,
    /// Attempts that have ended since a connection was last set up.
    ended: u32,
}

impl Envelope {
    /// Returns the least delay since the last attempt ended.
    fn least_ms(&self) -> u64 {
        let Some(doublings) = self.ended.checked_sub(1) else { return 0 };
        let delay_ms = DELAY_MIN_MS.saturating_mul(2u64.saturating_pow(doublings)).min(DELAY_MAX_MS);
        delay_ms * JITTER_LEAST_PER_CENT / 100
    }

    fn attempt(&mut self, at: SimTime, attempt: u64, names: (&InstanceName, &InstanceName)) -> Result<(), Violation> {
        let (instance, target) = (names.0.clone(), names.1.clone());
        if self.open.replace(attempt).is_some() {
            return Err(Violation::Overlapping { instance, target });
        }
        let waited_ms = at.ms_since(self.ended_at);
        let least_ms = self.least_ms();
        if waited_ms + TIMER_TOLERANCE_MS < least_ms {
            return Err(Violation::TooSoon { instance, target, ended: self.ended, waited_ms, least_ms });
        }
        Ok(())
    }

    fn end(&mut self, at: SimTime, attempt: u64) {
        self.ended += 1;
        self.ended_at = at;
        if self.open == Some(attempt) {
            self.open = None;
        }
    }
}

impl Invariant for NoTightReconnect {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Started,
        Kind::Following,
        Kind::Applied,
        Kind::Positioned,
        Kind::Reset,
        Kind::Connecting,
        Kind::Failed,
        Kind::Greeted,
        Kind::Announced,
        Kind::Closed,
    ];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        if let Some(pair) = scene.set_up() {
            self.envelopes.entry(pair).or_default().ended = 0;
        }
        match observation {
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => {
                if let Some(pair) = scene.pair() {
                    self.envelopes.entry(pair).or_default().end(at, *attempt);
                }
            }
            Observation::Connecting { instance, target, attempt } => {
                self.judged += 1;
                if let Some(pair) = scene.pair() {
                    return self.envelopes.entry(pair).or_default().attempt(at, *attempt, (instance, target));
                }
            }
            Observation::Started { .. } => self.envelopes.retain(|(from, _), _| *from != scene.instance()),
            _ => {}
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use squall_protocol::Delivery;
    use squall_protocol::Token;

    /// A worker that connects to a master.
    struct Worker {
        judge: Alone<NoTightReconnect>,
        at_ms: u64,
        attempt: u64,
    }

    impl Worker {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()])
                .with_stream("events", Delivery::Log, ["master".into()])
                .with_stream("typing", Delivery::Memory, ["master".into()]);
            Worker { judge: Alone::<NoTightReconnect>::new(&topology), at_ms: 0, attempt: 0 }
        }

        fn see(&mut self, observation: Observation) {
            self.judge.observe(SimTime(self.at_ms), &observation).unwrap();
        }

        fn try_after(&mut self, ms: u64) -> Result<(), Violation> {
            self.at_ms += ms;
            self.attempt += 1;
            let (instance, target) = ("worker".into(), "master".into());
            let connecting = Observation::Connecting { instance, target, attempt: self.attempt };
            self.judge.observe(SimTime(self.at_ms), &connecting)
        }

        fn connected(&mut self) {
            self.see(Observation::Connected { instance: "worker".into(), attempt: self.attempt });
        }

        fn announced(&mut self, stream: &str, position: i64) {
            let (instance, writer): (InstanceName, InstanceName) = ("worker".into(), "master".into());
            let (stream, position) = (stream.into(), Token(position));
            self.see(Observation::Announced {
                instance,
                attempt: self.attempt,
                stream,
                writer,
                prev: position,
                position,
            });
        }

        fn positioned(&mut self, stream: &str, position: i64) {
            let (instance, writer): (InstanceName, InstanceName) = ("worker".into(), "master".into());
            self.see(Observation::Positioned { instance, stream: stream.into(), writer, position: Token(position) });
        }

        fn closed(&mut self) {
            self.see(Observation::Closed { instance: "worker".into(), attempt: self.attempt });
        }

        fn fail_after(&mut self, ms: u64) -> Result<(), Violation> {
            self.try_after(ms)?;
            self.see(Observation::Failed { instance: "worker".into(), attempt: self.attempt });
            Ok(())
        }
    }

    fn least_ms(result: Result<(), Violation>) -> u64 {
        match result {
            Err(Violation::TooSoon { least_ms, .. }) => least_ms,
            other => panic!("not too soon: {other:?}"),
        }
    }

    #[test]
    fn attempts_along_the_envelope_are_in_time() {
        let mut worker = Worker::new();
        for delay_ms in [0, 88, 176, 352, 704, 1_408, 2_816, 4_400, 4_400, 4_399] {
            assert_eq!(worker.fail_after(delay_ms), Ok(()));
        }
        assert_eq!(worker.judge.exercised(), 10);
    }

    #[test]
    fn the_envelope_grows_to_its_end_and_no_further() {
        let mut worker = Worker::new();
        for delay_ms in [0, 88, 176] {
            assert_eq!(worker.fail_after(delay_ms), Ok(()));
        }
        assert_eq!(least_ms(worker.fail_after(350)), 352);
        let envelope = Envelope { ended: u32::MAX, ..Envelope::default() };
        assert_eq!(envelope.least_ms(), 4_400);
    }

    #[test]
    fn a_connection_that_was_accepted_and_not_set_up_does_not_reset_the_delay() {
        let mut worker = Worker::new();
        for delay_ms in [0, 100] {
            assert_eq!(worker.try_after(delay_ms), Ok(()));
            worker.connected();
            worker.announced("typing", 0);
            worker.positioned("typing", 0);
            worker.announced("events", 7);
            worker.positioned("events", 6);
            worker.closed();
        }
        assert_eq!(least_ms(worker.try_after(100)), 176);
    }

    #[test]
    fn a_connection_that_was_set_up_resets_the_delay() {
        let mut worker = Worker::new();
        for delay_ms in [0, 100, 200, 400] {
            assert_eq!(worker.fail_after(delay_ms), Ok(()));
        }
        assert_eq!(worker.try_after(800), Ok(()));
        worker.connected();
        worker.announced("events", 7);
        worker.announced("typing", 0);
        worker.positioned("typing", 0);
        worker.positioned("events", 8);
        worker.closed();
        assert_eq!(worker.fail_after(88), Ok(()));
        assert_eq!(least_ms(worker.try_after(88)), 176);
    }

    #[test]
    fn a_log_position_reached_before_counts_and_an_in_memory_one_does_not() {
        let mut worker = Worker::new();
        worker.positioned("events", 7);
        worker.positioned("typing", 7);
        for delay_ms in [0, 100] {
            assert_eq!(worker.try_after(delay_ms), Ok(()));
            worker.connected();
            worker.announced("events", 7);
            worker.announced("typing", 7);
            worker.closed();
        }
        assert_eq!(least_ms(worker.try_after(100)), 176);
    }

    #[test]
    fn a_new_process_starts_a_new_envelope() {
        let mut worker = Worker::new();
        for delay_ms in [0, 100, 200, 400] {
            assert_eq!(worker.fail_after(delay_ms), Ok(()));
        }
        worker.see(Observation::Started { instance: "worker".into(), boot: 2 });
        assert_eq!(worker.fail_after(0), Ok(()));
    }

    #[test]
    fn an_attempt_while_the_one_before_is_open_overlaps() {
        let mut worker = Worker::new();
        assert_eq!(worker.try_after(0), Ok(()));
        worker.connected();
        assert!(matches!(worker.try_after(60_000), Err(Violation::Overlapping { .. })));
    }
}
