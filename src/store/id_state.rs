//! What one instance knows of the ids of a stream with several writers: Synapse's `MultiWriterIdGenerator`, as a state
//! machine without I/O.
//!
//! Ids come from one sequence, and commit in any order. A position may therefore pass an id only when that id is
//! *settled*: committed, or never to be. Everything here answers one of two questions, and never takes an answer back:
//!
//! - up to where is one writer settled? Its own business: below its lowest outstanding id.
//! - up to where is everyone? At least the minimum over the writers, and from there on through ids known to be settled
//!   as long as no number is missing.
//!
//! An id is outstanding before it is known: between asking the sequence and hearing its answer, anything above the
//! highest id seen when the question was asked may turn out to be ours (Synapse #11045).
//!
//! Synapse takes a position received from another writer as proof that the row with that number exists. It is not:
//! a writer that has just started stands at the last id of the sequence, which may be a third writer's and still
//! outstanding. Here only a row is such proof, see [`IdState::advance`] and [`IdState::advance_by_row`].

use std::collections::{BTreeMap, BTreeSet};

use super::position::VectorPosition;
use crate::protocol::{InstanceName, Token};

#[cfg(test)]
mod tests;

/// A question to the sequence that is not answered yet. It ends by [`IdState::allocated`] or [`IdState::abandon_fetch`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(u64);

/// What an instance finds in the database when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartingPoint {
    /// Up to where each writer is settled, this instance included if it writes.
    pub positions: BTreeMap<InstanceName, Token>,
    /// Up to where every writer is settled.
    pub persisted_upto: Token,
    /// The last id taken from the sequence.
    pub max_allocated: Token,
    /// The ids above `persisted_upto` that have rows.
    pub committed: BTreeSet<Token>,
}

/// The ids of one stream as one instance sees them. No view of it ever goes backwards.
#[derive(Debug)]
pub struct IdState {
    local: InstanceName,
    /// Up to where each writer is settled, as far as we heard. Ours is our last finished id.
    positions: BTreeMap<InstanceName, Token>,
    /// Our ids that may still commit.
    unfinished: BTreeSet<Token>,
    /// For each question to the sequence, the highest id seen when it was asked: the answer will be above it.
    fetches: BTreeMap<FetchId, Token>,
    fetches_begun: u64,
    /// Our finished ids above an outstanding one.
    finished: BTreeSet<Token>,
    /// Anyone's settled ids above `persisted_upto`.
    settled: BTreeSet<Token>,
    persisted_upto: Token,
    /// The highest id we know to have been allocated, by anyone.
    max_allocated: Token,
    /// The position we announce.
    local_position: Token,
    /// The highest of our own ids that is settled, holes below it or not.
    last_own: Token,
}

impl IdState {
    /// The state of `local` at its start.
    pub fn new(local: InstanceName, start: StartingPoint) -> Self {
        let mut state = IdState {
            local,
            positions: start.positions,
            unfinished: BTreeSet::new(),
            fetches: BTreeMap::new(),
            fetches_begun: 0,
            finished: BTreeSet::new(),
            settled: start.committed,
            persisted_upto: start.persisted_upto,
            max_allocated: start.max_allocated,
            local_position: Token::default(),
            last_own: Token::default(),
        };
        state.raise();
        state.last_own = state.local_position;
        state
    }

    /// We are about to ask the sequence for ids.
    pub fn begin_fetch(&mut self) -> FetchId {
        self.fetches_begun += 1;
        self.fetches.insert(FetchId(self.fetches_begun), self.max_allocated);
        FetchId(self.fetches_begun)
    }

    /// The sequence has answered with `ids`, which are now ours to commit.
    pub fn allocated(&mut self, fetch: FetchId, ids: &[Token]) {
        self.fetches.remove(&fetch);
        self.unfinished.extend(ids);
        self.max_allocated = ids.iter().copied().fold(self.max_allocated, Token::max);
        self.raise();
    }

    /// Nobody waits for the sequence's answer any more. Ids it may still give are lost: no row will ever have them.
    pub fn abandon_fetch(&mut self, fetch: FetchId) {
        self.fetches.remove(&fetch);
        self.raise();
    }

    /// Our `ids` are settled: their transaction committed, or never will.
    pub fn finish(&mut self, ids: &[Token]) {
        for id in ids {
            self.unfinished.remove(id);
            self.finished.insert(*id);
            self.settled.insert(*id);
            self.last_own = self.last_own.max(*id);
        }
        self.raise();
    }

    /// `writer` says that it is settled up to `token`. That number itself need not be a row.
    pub fn advance(&mut self, writer: &InstanceName, token: Token) {
        // We know our own position better than an echo of it.
        if *writer == self.local {
            return;
        }
        let position = self.positions.entry(writer.clone()).or_default();
        *position = token.max(*position);
        self.max_allocated = self.max_allocated.max(token);
        self.raise();
    }

    /// A row of `writer` with `token` has arrived: that id is committed, and the writer settled up to it.
    pub fn advance_by_row(&mut self, writer: &InstanceName, token: Token) {
        self.settled.insert(token);
        self.advance(writer, token);
    }

    /// Up to where every writer is settled (Synapse's `persisted_upto_position`).
    pub fn current_token(&self) -> Token {
        self.persisted_upto
    }

    /// Up to where `writer` is settled. For this instance that is what it announces: while nothing of it is outstanding
    /// it stands at the highest id it has seen, so that an idle writer holds nobody back (Synapse #8499).
    pub fn current_token_for_writer(&self, writer: &InstanceName) -> Token {
        let known = match self.positions.get(writer) {
            Some(_) if *writer == self.local => self.local_position,
            Some(&position) => position,
            None => self.persisted_upto,
        };
        known.max(self.persisted_upto)
    }

    /// How far `writer` itself has told us of its rows, by announcing its position or by the rows.
    ///
    /// [`current_token_for_writer`](Self::current_token_for_writer) may be further, because an unbroken run of settled
    /// ids shows that nothing can be missing below it. That is true of the database, but not of what has arrived here: a
    /// row of such a run that was found in the database at the start is still on its way, and is new to whoever follows.
    pub fn told_by(&self, writer: &InstanceName) -> Token {
        self.positions.get(writer).copied().unwrap_or(self.persisted_upto)
    }

    /// The last of our own ids below which nothing of ours is outstanding: what a request from us must wait for
    /// elsewhere (Synapse #16473). An instance that does not write has its reading position instead.
    pub fn minimal_local_current_token(&self) -> Token {
        self.positions.get(&self.local).copied().unwrap_or(self.persisted_upto)
    }

    /// No row of ours has a higher id than this, unless its id is still outstanding.
    ///
    /// It may be above the position we announce, and [`minimal_local_current_token`](Self::minimal_local_current_token)
    /// may be below a row of ours that the position has passed, when an unbroken run of settled ids has carried it over
    /// one that we only asked for. Taking the minimal token for "no rows of ours after this" announces a position over a
    /// committed row (Synapse #19795).
    pub fn last_own_token(&self) -> Token {
        self.last_own
    }

    /// The whole of what is known: up to where all writers are settled, and who is further.
    pub fn vector(&self) -> VectorPosition {
        let ahead = self.positions.keys().map(|writer| (writer.clone(), self.current_token_for_writer(writer)));
        VectorPosition::new(self.persisted_upto, ahead.collect())
    }

    /// Our lowest id that may still commit, counting those the sequence has yet to tell us.
    fn first_outstanding(&self) -> Option<Token> {
        let unfinished = self.unfinished.first().copied();
        // The oldest question saw the lowest maximum.
        let to_come = self.fetches.first_key_value().map(|(_, seen)| seen.next());
        unfinished.into_iter().chain(to_come).min()
    }

    /// Raises every position as far as what is known now allows.
    fn raise(&mut self) {
        let outstanding = self.first_outstanding();
        let local_settled = outstanding.map_or(self.max_allocated, Token::prev);
        if let Some(own) = self.positions.get_mut(&self.local) {
            let held = outstanding.map_or_else(BTreeSet::new, |first| self.finished.split_off(&first));
            let released = std::mem::replace(&mut self.finished, held);
            *own = released.last().copied().map_or(*own, |last| last.max(*own));
        }

        let floors = self.positions.iter().map(|(writer, &position)| match *writer == self.local {
            true => local_settled,
            false => position,
        });
        self.persisted_upto = floors.min().map_or(self.persisted_upto, |floor| floor.max(self.persisted_upto));
        while let Some(&id) = self.settled.first()
            && id <= self.persisted_upto.next()
        {
            self.settled.pop_first();
            self.persisted_upto = self.persisted_upto.max(id);
        }
        self.local_position = self.local_position.max(local_settled).max(self.persisted_upto);
    }
}
