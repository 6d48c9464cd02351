//! Two readers, their loads and a writer's changes with their invalidations, in every order there is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::tests::Source;
use super::{Cache, LoadError};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A reader asks.
    Begin(usize),
    /// A reader's own load, if it has one, looks at the source.
    Look(usize),
    /// A reader's own load brings what it saw.
    Answer(usize),
    /// A reader goes away.
    Leave(usize),
    /// The source changes.
    Change,
    /// The last change becomes known here.
    Invalidate,
}

type Reader<'a> = Pin<Box<dyn Future<Output = Result<u32, LoadError>> + 'a>>;

/// What is known of one reader.
#[derive(Default)]
struct Asked<'a> {
    reading: Option<Reader<'a>>,
    /// The change that was known when it asked: what it is told must not be older.
    owed: u32,
    /// The question to the source that is its own.
    question: Option<usize>,
    told: Option<u32>,
}

/// Everything that happens, up to now.
struct Run<'a> {
    cache: &'a Cache<(), u32>,
    source: &'a Source,
    asked: [Asked<'a>; 2],
    /// What each question has seen.
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
                self.asked[reader].reading = Some(reading);
                self.asked[reader].owed = self.known;
                self.poll(reader);
            }
            Step::Look(reader) => {
                if let Some(question) = self.asked[reader].question {
                    self.seen[question] = self.truth;
                }
            }
            Step::Answer(reader) => {
                if let Some(question) = self.asked[reader].question.take() {
                    self.source.answer(question, Ok(self.seen[question]));
                }
                self.poll(reader);
                self.poll(1 - reader);
            }
            Step::Leave(reader) => {
                self.asked[reader].reading = None;
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
        let asked = &mut self.asked[reader];
        let Some(reading) = &mut asked.reading else { return };
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => {
                asked.told = Some(value.unwrap());
                asked.reading = None;
            }
            Poll::Pending if self.source.asked() > self.seen.len() => {
                asked.question = Some(self.seen.len());
                self.seen.push(self.truth);
            }
            Poll::Pending => {}
        }
    }
}

/// Runs `steps` and gives how many questions were asked.
fn check(steps: &[Step]) -> usize {
    let (cache, source) = (Cache::new(1), Source::default());
    let (asked, seen) = Default::default();
    let mut run = Run { cache: &cache, source: &source, asked, seen, truth: 0, known: 0 };
    steps.iter().for_each(|step| run.step(*step));
    // A question that took the place of one whose reader had left comes after the planned steps.
    for reader in [0, 1] {
        run.step(Step::Look(reader));
        run.step(Step::Answer(reader));
    }
    for asked in &run.asked {
        assert!(asked.reading.is_none(), "a reader was never answered: {steps:?}");
        assert!(asked.told.is_none_or(|told| told >= asked.owed), "a reader was told old news: {steps:?}");
    }
    let questions = source.asked();
    run.asked = Default::default();
    run.step(Step::Begin(0));
    assert!(run.asked[0].told.is_none_or(|told| told == run.truth), "an old value is kept: {steps:?}");
    questions
}

/// Checks every order of the steps that leaves each of `threads` in its own.
fn check_all(threads: &[&[Step]], done: &mut Vec<Step>, told: &mut impl FnMut(&[Step], usize)) {
    if threads.iter().all(|thread| thread.is_empty()) {
        told(done, check(done));
    }
    for (index, thread) in threads.iter().enumerate() {
        let [next, rest @ ..] = thread else { continue };
        let mut left = threads.to_vec();
        left[index] = rest;
        done.push(*next);
        check_all(&left, done, told);
        done.pop();
    }
}

#[test]
fn nobody_is_told_and_nothing_is_kept_from_before_a_known_change_in_any_order() {
    let writer = [Step::Change, Step::Invalidate, Step::Change, Step::Invalidate];
    let reads = |reader| [Step::Begin(reader), Step::Look(reader), Step::Answer(reader)];
    let (mut orders, mut questions) = (0, [0; 4]);
    check_all(&[&reads(0), &writer, &reads(1)], &mut Vec::new(), &mut |_, asked| {
        orders += 1;
        questions[asked] += 1;
    });
    assert_eq!(orders, 4200);
    // Both ways: loads are shared, and they are not where they must not be.
    assert!(questions[1] > 500 && questions[2] > 500, "{questions:?}");
}

#[test]
fn a_reader_that_leaves_at_any_point_harms_nobody() {
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
