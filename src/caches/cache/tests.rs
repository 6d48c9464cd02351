//! The races of a cache, one test each.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use thiserror::Error;
use tokio::sync::oneshot;

use super::{Cache, LoadError};

/// A source whose answers, and their times, are chosen by the test.
#[derive(Default)]
pub(super) struct Source {
    reads: RefCell<Vec<oneshot::Sender<Result<u32, OutOfReach>>>>,
}

#[derive(Debug, Clone, PartialEq, Error)]
#[error("the source is out of reach")]
pub(super) struct OutOfReach;

impl Source {
    /// Returns the number of reads.
    pub(super) fn reads(&self) -> usize {
        self.reads.borrow().len()
    }

    /// Completes the read numbered `read`, from 0.
    pub(super) fn answer(&self, read: usize, answer: Result<u32, OutOfReach>) {
        let (unused, _) = oneshot::channel();
        let reply = std::mem::replace(&mut self.reads.borrow_mut()[read], unused);
        let _ = reply.send(answer);
    }

    pub(super) async fn load(&self) -> Result<u32, OutOfReach> {
        let (answer, answered) = oneshot::channel();
        self.reads.borrow_mut().push(answer);
        answered.await.expect("the test answers")
    }
}

type Reader<'a> = Pin<Box<dyn Future<Output = Result<u32, LoadError>> + 'a>>;

/// Begins to read `key`, whose value is not cached.
fn reader<'a>(cache: &'a Cache<&'static str, u32>, key: &'static str, source: &'a Source) -> Reader<'a> {
    let mut reader: Reader<'a> = Box::pin(async move { cache.get(&key, async || source.load().await).await });
    assert_eq!(value(&mut reader), None);
    reader
}

/// Returns the value the reader has received.
fn value(reader: &mut Reader<'_>) -> Option<u32> {
    match reader.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value.unwrap()),
        Poll::Pending => None,
    }
}

/// Returns the cached value of `key`.
fn cached(cache: &Cache<&'static str, u32>, key: &'static str) -> Option<u32> {
    let load = async || std::future::pending::<Result<u32, Infallible>>().await;
    match pin!(cache.get(&key, load)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn a_value_is_loaded_once_and_cached() {
    let (cache, source) = (Cache::new(9), Source::default());
    let mut first = reader(&cache, "a", &source);
    source.answer(0, Ok(1));
    assert_eq!(value(&mut first), Some(1));
    assert_eq!((cached(&cache, "a"), source.reads(), cache.len()), (Some(1), 1, 1));
}

#[test]
fn readers_of_one_key_share_a_load_and_readers_of_others_do_not() {
    let (cache, source) = (Cache::new(9), Source::default());
    let mut readers = [reader(&cache, "a", &source), reader(&cache, "a", &source), reader(&cache, "b", &source)];
    assert_eq!(source.reads(), 2);
    source.answer(0, Ok(1));
    // The reader that began the load completes it for the one that waits.
    assert_eq!(value(&mut readers[0]), Some(1));
    assert_eq!(value(&mut readers[1]), Some(1));
    assert_eq!(value(&mut readers[2]), None);
}

#[test]
fn a_value_invalidated_while_it_was_loaded_is_returned_and_not_cached() {
    let (cache, source) = (Cache::new(9), Source::default());
    let mut early = [reader(&cache, "a", &source), reader(&cache, "a", &source)];
    cache.invalidate(&"a");
    source.answer(0, Ok(1));
    assert_eq!(early.each_mut().map(value), [Some(1), Some(1)]);
    assert_eq!((cached(&cache, "a"), cache.raced()), (None, 1));
}

#[test]
fn a_reader_after_an_invalidation_begins_a_new_load() {
    for answers in [[0, 1], [1, 0]] {
        let (cache, source) = (Cache::new(9), Source::default());
        let mut readers = [reader(&cache, "a", &source), {
            cache.invalidate(&"a");
            reader(&cache, "a", &source)
        }];
        assert_eq!(source.reads(), 2);
        for question in answers {
            source.answer(question, Ok(question as u32));
            assert_eq!(value(&mut readers[question]), Some(question as u32));
        }
        assert_eq!(
            cached(&cache, "a"),
            Some(1),
            "the older load must not replace the younger one's value: {answers:?}"
        );
    }
}

#[test]
fn keys_of_a_kind_and_all_keys_are_invalidated_with_their_loads() {
    for invalidate_all in [false, true] {
        let (cache, source) = (Cache::new(9), Source::default());
        for (question, key) in ["a1", "b1"].into_iter().enumerate() {
            let mut reader = reader(&cache, key, &source);
            source.answer(question, Ok(0));
            assert_eq!(value(&mut reader), Some(0));
        }
        let mut loading = [reader(&cache, "a2", &source), reader(&cache, "b2", &source)];
        match invalidate_all {
            true => cache.invalidate_all(),
            false => cache.invalidate_where(|key| key.starts_with('a')),
        }
        source.answer(2, Ok(0));
        source.answer(3, Ok(0));
        assert_eq!(loading.each_mut().map(value), [Some(0), Some(0)]);
        let left = ["a1", "a2", "b1", "b2"].map(|key| cached(&cache, key).is_some());
        assert_eq!(left, [false, false, !invalidate_all, !invalidate_all]);
        assert_eq!(cache.is_empty(), invalidate_all);
    }
}

#[test]
fn when_a_reader_goes_away_another_begins_a_new_load() {
    let (cache, source) = (Cache::new(9), Source::default());
    let (first, mut waiting) = (reader(&cache, "a", &source), reader(&cache, "a", &source));
    drop(reader(&cache, "a", &source));
    drop(first);
    assert_eq!(value(&mut waiting), None);
    assert_eq!(source.reads(), 2);
    source.answer(1, Ok(2));
    assert_eq!(value(&mut waiting), Some(2));
    assert_eq!(cached(&cache, "a"), Some(2));
    assert!(cache.loads.borrow().is_empty());
}

#[test]
fn a_reader_that_goes_away_after_an_invalidation_does_not_end_a_younger_load() {
    let (cache, source) = (Cache::new(9), Source::default());
    let old = reader(&cache, "a", &source);
    cache.invalidate(&"a");
    let mut young = reader(&cache, "a", &source);
    drop(old);
    let mut joined = reader(&cache, "a", &source);
    assert_eq!(source.reads(), 2);
    source.answer(1, Ok(1));
    assert_eq!([value(&mut young), value(&mut joined)], [Some(1), Some(1)]);
}

#[test]
fn a_failure_is_returned_to_all_readers_of_the_load_and_not_cached() {
    let (cache, source) = (Cache::new(9), Source::default());
    let mut readers = [reader(&cache, "a", &source), reader(&cache, "a", &source)];
    source.answer(0, Err(OutOfReach));
    for reader in &mut readers {
        match reader.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => assert!(error.downcast_ref::<OutOfReach>().is_some()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((cached(&cache, "a"), source.reads()), (None, 1));
}

#[test]
fn a_waiting_reader_is_woken() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (cache, source) = (Rc::new(Cache::new(9)), Rc::new(Source::default()));
        let read = || {
            let (cache, source) = (Rc::clone(&cache), Rc::clone(&source));
            tokio::task::spawn_local(async move { cache.get(&"a", async || source.load().await).await.unwrap() })
        };
        let readers = [read(), read(), read()];
        tokio::task::yield_now().await;
        let [first, waiting @ ..] = readers;
        first.abort();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        source.answer(1, Ok(7));
        for reader in waiting {
            assert_eq!(reader.await.unwrap(), 7);
        }
    });
}
