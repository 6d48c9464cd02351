//! The ids of a stream with several writers, as one instance knows them: Synapse's `MultiWriterIdGenerator` as a state
//! machine without I/O.
//!
//! Ids come from one sequence and commit in any order. A position may pass an id only when that id is *settled*: it has
//! committed, or never will. The state answers two questions, and its answers never go backwards:
//!
//! - Up to which token is one writer settled? Below its lowest outstanding id.
//! - Up to which token are all writers settled? At least the minimum over the writers, and from there on through ids known
//!   to be settled, as long as no number is missing.
//!
//! An id is outstanding before it is known. Between the request to the sequence and its answer, any id above the highest
//! one seen at the request may turn out to be the instance's own (Synapse #11045).
//!
//! Synapse takes a position received from another writer as proof that the row with that number exists. It is not: a
//! writer that has just started is at the last id of the sequence, which may be a third writer's and still outstanding.
//! Here only a row is such proof, see [`IdState::advance`] and [`IdState::advance_by_row`].
//!
//! Every token that was believed had been taken from the sequence before. So an id that a later request gets is higher, or the
//! sequence was set back, and no row may be written under it.

use std::collections::{BTreeMap, BTreeSet};

use squall_protocol::{InstanceName, Token, VectorPosition};

#[cfg(test)]
mod tests;

/// A request to the sequence that is not answered yet. It ends by [`IdState::allocated`] or [`IdState::abandon_fetch`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FetchId(u64);

/// The state of a stream in the database at the start of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StartingPoint {
    /// The token up to which each writer is settled, this instance included if it writes.
    pub positions: BTreeMap<InstanceName, Token>,
    /// The token up to which every writer is settled.
    pub persisted_upto: Token,
    /// The last id taken from the sequence.
    pub max_allocated: Token,
    /// The ids above `persisted_upto` that have rows.
    pub committed: BTreeSet<Token>,
    /// The writers with a recorded position that are not configured. Their positions count for nothing.
    pub unclaimed: Vec<InstanceName>,
}

/// The ids of one stream as one instance knows them. No value it returns ever goes backwards.
#[derive(Debug)]
pub(super) struct IdState {
    local: InstanceName,
    /// The token up to which each writer is settled, as received from it. The own one is the last finished own id.
    positions: BTreeMap<InstanceName, Token>,
    /// The own ids that may still commit.
    unfinished: BTreeSet<Token>,
    /// The requests to the sequence, each with the highest id that was known when it began. Its answer will be above that.
    fetches: BTreeMap<FetchId, Token>,
    fetches_begun: u64,
    /// The own finished ids above an outstanding one.
    finished: BTreeSet<Token>,
    /// The settled ids of all writers above `persisted_upto`.
    settled: BTreeSet<Token>,
    persisted_upto: Token,
    /// The highest id known to have been allocated, by any writer.
    max_allocated: Token,
    /// The announced position.
    local_position: Token,
    /// The highest own id that is settled, even if lower own ids are outstanding.
    last_own: Token,
}

impl IdState {
    /// Creates the state of `local` at its start.
    pub(super) fn new(local: InstanceName, start: StartingPoint) -> Self {
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

    /// Begins a request to the sequence for own ids.
    pub(super) fn begin_fetch(&mut self) -> FetchId {
        self.fetches_begun += 1;
        self.fetches.insert(FetchId(self.fetches_begun), self.max_allocated);
        FetchId(self.fetches_begun)
    }

    /// Ends a request: the sequence has answered with `ids`, which the instance may now commit.
    ///
    /// # Errors
    /// A token as high as the lowest of `ids`, or higher, was known before the request. The ids are not used.
    pub(super) fn allocated(&mut self, fetch: FetchId, ids: &[Token]) -> Result<(), Token> {
        let seen = self.fetches.remove(&fetch).unwrap_or_default();
        let is_above = ids.iter().all(|id| *id > seen);
        if is_above {
            self.unfinished.extend(ids);
            self.max_allocated = ids.iter().copied().fold(self.max_allocated, Token::max);
        }
        self.raise();
        if is_above { Ok(()) } else { Err(seen) }
    }

    /// Ends a request whose caller no longer waits. Ids that the sequence may still return are unused: no row will have them.
    pub(super) fn abandon_fetch(&mut self, fetch: FetchId) {
        self.fetches.remove(&fetch);
        self.raise();
    }

    /// Marks own `ids` as settled: their transaction has committed, or never will.
    pub(super) fn finish(&mut self, ids: &[Token]) {
        for id in ids {
            self.unfinished.remove(id);
            self.finished.insert(*id);
            self.settled.insert(*id);
            self.last_own = self.last_own.max(*id);
        }
        self.raise();
    }

    /// Advances `writer` to `token`, because it has announced that it is settled up to there. No row need have that number.
    pub(super) fn advance(&mut self, writer: &InstanceName, token: Token) {
        let is_new = self.positions.get(writer).is_none_or(|position| *position < token);
        if is_new || self.max_allocated < token {
            self.receive(writer, token);
        }
    }

    /// Advances `writer` to `token`, because a row of that token has arrived: the id is committed, and the writer is settled
    /// up to it.
    pub(super) fn advance_by_row(&mut self, writer: &InstanceName, token: Token) {
        self.settled.insert(token);
        self.receive(writer, token);
    }

    fn receive(&mut self, writer: &InstanceName, token: Token) {
        // An echo of the own position brings nothing new.
        if *writer == self.local {
            return;
        }
        let position = self.positions.entry(writer.clone()).or_default();
        *position = token.max(*position);
        self.max_allocated = self.max_allocated.max(token);
        self.raise();
    }

    /// Returns the highest id known to have been allocated, by any writer.
    pub(super) fn max_allocated(&self) -> Token {
        self.max_allocated
    }

    /// Returns the token up to which every writer is settled (Synapse's `persisted_upto_position`).
    pub(super) fn current_token(&self) -> Token {
        self.persisted_upto
    }

    /// Returns the token up to which `writer` is settled. For this instance that is the announced position: while none of
    /// its ids is outstanding, it is at the highest id seen, so that an idle writer does not hold back the others (Synapse
    /// #8499).
    pub(super) fn current_token_for_writer(&self, writer: &InstanceName) -> Token {
        let known = match self.positions.get(writer) {
            Some(_) if *writer == self.local => self.local_position,
            Some(&position) => position,
            None => self.persisted_upto,
        };
        known.max(self.persisted_upto)
    }

    /// Returns the position of `writer` as received from it, by its announcements and rows.
    ///
    /// [`current_token_for_writer`](Self::current_token_for_writer) may be further, because an unbroken run of settled ids
    /// shows that nothing can be missing below it. That is true of the database, but not of the rows that have arrived: a
    /// row of such a run that was found in the database at the start is still on its way, and is new to a follower.
    pub(super) fn received_position(&self, writer: &InstanceName) -> Token {
        self.positions.get(writer).copied().unwrap_or(self.persisted_upto)
    }

    /// Returns the last own id below which no own id is outstanding: the token that another instance must have reached
    /// before it serves a request of this one (Synapse #16473). For an instance that does not write, its reading position.
    pub(super) fn minimal_local_current_token(&self) -> Token {
        self.positions.get(&self.local).copied().unwrap_or(self.persisted_upto)
    }

    /// Returns true if the own id `token` may still commit, or its row is not shown yet.
    pub(super) fn is_outstanding(&self, token: Token) -> bool {
        self.unfinished.contains(&token)
    }

    /// Returns the highest own id that is settled. No own row has a higher id, unless that id is still outstanding.
    ///
    /// It may be above the announced position. [`minimal_local_current_token`](Self::minimal_local_current_token) may be
    /// below an own row that the position has passed, when an unbroken run of settled ids has carried the position over an
    /// id that is only requested. A writer that takes the minimal token for "no own rows after this" announces a position
    /// over a committed row (Synapse #19795).
    pub(super) fn last_own_token(&self) -> Token {
        self.last_own
    }

    /// Returns the token up to which all writers are settled, and the writers that are further.
    pub(super) fn vector(&self) -> VectorPosition {
        let ahead = self.positions.keys().map(|writer| (writer.clone(), self.current_token_for_writer(writer)));
        VectorPosition::new(self.persisted_upto, ahead.collect())
    }

    /// Returns the lowest own id that may still commit, including ids that the sequence has not returned yet.
    fn first_outstanding(&self) -> Option<Token> {
        let unfinished = self.unfinished.first().copied();
        // The oldest request saw the lowest maximum.
        let to_come = self.fetches.first_key_value().map(|(_, seen)| seen.next());
        unfinished.into_iter().chain(to_come).min()
    }

    /// Raises every position as far as the known ids allow.
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
