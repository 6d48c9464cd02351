//! Two readers with their loads and a writer with its invalidations, in every possible order.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::tests::Source;
use super::{Cache, LoadError};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A reader begins.
    Begin(usize),
    /// A reader's own load, if it has one, reads the source.
    Look(usize),
    /// A reader's own load returns the value it read.
    Answer(usize),
    /// A reader goes away.
    Leave(usize),
    /// The source changes.
    Change,
    /// The last change becomes known to the instance.
    Invalidate,
}

type Reader<'a> = Pin<Box<dyn Future<Output = Result<u32, LoadError>> + 'a>>;

/// The state of one reader.
#[derive(Default)]
struct ReaderState<'a> {
    reading: Option<Reader<'a>>,
    /// The change that was known when it began: its value must not be older.
    known: u32,
    /// The number of its own load.
    load: Option<usize>,
    value: Option<u32>,
}

/// The state of a run.
struct Run<'a> {
    cache: &'a Cache<(), u32>,
    source: &'a Source,
    readers: [ReaderState<'a>; 2],
    /// The value that each load has read.
    seen: Vec<u32>,
    truth: u32,
    known: u32,
}

impl<'a> Run<'a> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Begin(reader) => {
                let (cache, source) = (self.cache, self.source);
                let reading = Box::pin(async move { cache.get(&(), async || source.load().await).await });
                self.readers[reader].reading = Some(reading);
                self.readers[reader].known = self.known;
                self.poll(reader);
            }
            Step::Look(reader) => {
                if let Some(load) = self.readers[reader].load {
                    self.seen[load] = self.truth;
                }
            }
            Step::Answer(reader) => {
                if let Some(load) = self.readers[reader].load.take() {
                    self.source.answer(load, Ok(self.seen[load]));
                }
                self.poll(reader);
                self.poll(1 - reader);
            }
            Step::Leave(reader) => {
                self.readers[reader].reading = None;
                self.poll(1 - reader);
            }
            Step::Change => self.truth += 1,
            Step::Invalidate => {
                self.cache.invalidate(&());
                self.known = self.truth;
            }
        }
    }

    fn poll(&mut self, reader: usize) {
        let state = &mut self.readers[reader];
        let Some(reading) = &mut state.reading else { return };
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => {
                state.value = Some(value.unwrap());
                state.reading = None;
            }
            Poll::Pending if self.source.reads() > self.seen.len() => {
                state.load = Some(self.seen.len());
                self.seen.push(self.truth);
            }
            Poll::Pending => {}
        }
    }
}

/// Runs `steps` and returns the number of loads.
fn check(steps: &[Step]) -> usize {
    let cache = Cache::new(1);
    let source = Source::default();
    let mut run =
        Run { cache: &cache, source: &source, readers: Default::default(), seen: Vec::new(), truth: 0, known: 0 };
    for step in steps {
        run.step(*step);
    }
    // A load that replaced that of a reader which had left comes after the planned steps.
    for reader in [0, 1] {
        run.step(Step::Look(reader));
        run.step(Step::Answer(reader));
    }
    for reader in &run.readers {
        assert!(reader.reading.is_none(), "a reader was never answered: {steps:?}");
        assert!(reader.value.is_none_or(|value| value >= reader.known), "a reader got an old value: {steps:?}");
    }
    let loads = source.reads();
    run.readers = Default::default();
    run.step(Step::Begin(0));
    assert!(run.readers[0].value.is_none_or(|value| value == run.truth), "an old value is cached: {steps:?}");
    loads
}

/// Checks every order of the steps that keeps the order within each of `threads`.
fn check_all(threads: &[&[Step]], done: &mut Vec<Step>, report: &mut impl FnMut(&[Step], usize)) {
    if threads.iter().all(|thread| thread.is_empty()) {
        report(done, check(done));
    }
    for (index, thread) in threads.iter().enumerate() {
        let [next, rest @ ..] = thread else { continue };
        let mut left = threads.to_vec();
        left[index] = rest;
        done.push(*next);
        check_all(&left, done, report);
        done.pop();
    }
}

#[test]
fn no_value_from_before_a_known_change_is_returned_or_cached_in_any_order() {
    let writer = [Step::Change, Step::Invalidate, Step::Change, Step::Invalidate];
    let reads = |reader| [Step::Begin(reader), Step::Look(reader), Step::Answer(reader)];
    let mut orders = 0;
    let mut loads = [0; 4];
    check_all(&[&reads(0), &writer, &reads(1)], &mut Vec::new(), &mut |_, count| {
        orders += 1;
        loads[count] += 1;
    });
    assert_eq!(orders, 4200);
    // Some orders share a load, and others must not.
    assert!(loads[1] > 500 && loads[2] > 500, "{loads:?}");
}

#[test]
fn a_reader_that_leaves_at_any_point_does_not_affect_others() {
    let writer = [Step::Change, Step::Invalidate];
    let stays = [Step::Begin(1), Step::Look(1), Step::Answer(1)];
    for leaves in [
        &[Step::Begin(0), Step::Leave(0)][..],
        &[Step::Begin(0), Step::Look(0), Step::Leave(0)],
        &[Step::Begin(0), Step::Look(0), Step::Answer(0), Step::Leave(0)],
    ] {
        let mut orders = 0;
        check_all(&[leaves, &writer, &stays], &mut Vec::new(), &mut |_, _| orders += 1);
        assert!(orders >= 210);
    }
}
