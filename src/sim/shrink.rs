//! Shrinking: the least plan that still fails in the same way.
//!
//! A plan that was drawn has tens of faults and hundreds of operations, of which a handful matter. Shrinking leaves out
//! and weakens one thing after the other, runs what remains, and keeps it whenever the run still has the fingerprint.
//! That works because every draw is keyed by what it is for: what is left does what it did before.
//!
//! Not quite, though: a packet more or less shifts the latencies of those after it, and a race may be lost by that
//! alone. So whatever is tried, and does not fail, is tried again with other draws: with another seed of the run, which
//! the plan takes over if that one fails.
//!
//! All of it is in the order of what gains most: first what comes after the failure, then whole faults, clients and
//! operations, then hosts, then settings, numbers and times; and again, until nothing changes any more or the budget is
//! spent. A run is the unit of the budget, so that the same plan shrinks to the same one on every machine.

mod hosts;
mod numbers;
mod settings;
mod times;

use super::engine::EngineName;
use super::plan::{MASTER, Plan};
use super::runner;
use super::verdict::Verdict;

/// How many runs shrinking may take if nobody says otherwise.
pub const RUNS_MAX: usize = 1_000;
/// How many seeds are tried with a plan before it counts as one that does not fail, once the first round is over.
const SEEDS_TRIED: u64 = 4;

/// What a plan was shrunk to.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The least plan that was found to fail in the same way.
    pub plan: Plan,
    /// How it fails.
    pub verdict: Verdict,
    /// How many plans were run.
    pub runs: usize,
    /// Whether the budget ended it: a larger one may lead to a smaller plan.
    pub is_cut_short: bool,
}

/// The least plan found in `runs_max` runs that fails on `engine` with `fingerprint`, as `plan` does. None if `plan` does
/// not.
pub fn shrink(engine: EngineName, plan: &Plan, fingerprint: &str, runs_max: usize) -> Option<Shrunk> {
    let (verdict, mut runs) = (runner::judge_on(engine, plan), 1);
    if !shows(&verdict, fingerprint) {
        return None;
    }
    let failed_at_ms = verdict.violation.as_ref().map(|finding| finding.at_ms);
    // What a run comes to after that need not be seen. It may be minutes, when what is missing never comes.
    let fails = |candidate: &Plan| {
        runs += 1;
        shows(&runner::judge_until(fingerprint, engine, candidate), fingerprint)
    };
    let mut shrinker = Shrinker::new(plan, runs_max.saturating_sub(2), fails);
    shrinker.run(failed_at_ms);
    let Shrinker { plan: least, runs_left, .. } = shrinker;
    let is_cut_short = runs_left == 0;
    // What is kept is judged whole, if it is not what was judged already.
    if runs == 1 {
        return Some(Shrunk { plan: least, verdict, runs, is_cut_short });
    }
    let verdict = runner::judge_on(engine, &least);
    Some(Shrunk { plan: least, verdict, runs: runs + 1, is_cut_short })
}

fn shows(verdict: &Verdict, fingerprint: &str) -> bool {
    verdict.fingerprints().iter().any(|shown| shown == fingerprint)
}

/// Makes a plan smaller as long as it `fails`.
struct Shrinker<F> {
    plan: Plan,
    fails: F,
    runs_left: usize,
    /// How many seeds of the run a plan is tried with.
    seeds_tried: u64,
}

impl<F: FnMut(&Plan) -> bool> Shrinker<F> {
    fn new(plan: &Plan, runs_max: usize, fails: F) -> Self {
        let mut plan = plan.clone();
        // An operation stays itself whatever is left out before it.
        for (place, operation) in plan.operations.iter_mut().enumerate() {
            operation.id.get_or_insert(place);
        }
        Shrinker { plan, fails, runs_left: runs_max, seeds_tried: 1 }
    }

    fn run(&mut self, failed_at_ms: Option<u64>) {
        if let Some(at_ms) = failed_at_ms {
            self.attempt(times::ending_at(&self.plan, at_ms));
        }
        loop {
            let before = self.plan.clone();
            self.leave_out(|plan| &mut plan.faults);
            self.leave_out(|plan| &mut plan.clients);
            self.leave_out(|plan| &mut plan.operations);
            for simpler in settings::SIMPLER {
                self.attempt(simpler(self.plan.clone()));
            }
            self.merge_hosts();
            self.lower_numbers();
            self.close_gaps();
            let is_done = self.plan == before && self.seeds_tried == SEEDS_TRIED;
            if is_done || self.runs_left == 0 {
                break;
            }
            self.seeds_tried = SEEDS_TRIED;
        }
        self.round_times();
    }

    /// Goes on with `candidate` if it fails.
    fn attempt(&mut self, candidate: Plan) -> bool {
        if candidate == self.plan {
            return false;
        }
        let seed = self.plan.seed;
        for seed in (0..self.seeds_tried).map(|more| seed.wrapping_add(more)) {
            if self.runs_left == 0 {
                return false;
            }
            self.runs_left -= 1;
            let candidate = Plan { seed, ..candidate.clone() };
            if (self.fails)(&candidate) {
                self.plan = candidate;
                return true;
            }
        }
        false
    }

    /// Leaves out as much of a list as it can: all of it, then halves, quarters and so on, down to each one; the last
    /// first, as what comes late is needed least.
    fn leave_out<T: Clone>(&mut self, list: impl Fn(&mut Plan) -> &mut Vec<T>) {
        let mut size = list(&mut self.plan).len();
        while size > 0 {
            let mut end = list(&mut self.plan).len();
            while end > 0 {
                let begin = end.saturating_sub(size);
                let mut candidate = self.plan.clone();
                list(&mut candidate).drain(begin..end);
                self.attempt(candidate);
                end = begin;
            }
            size /= 2;
        }
    }

    /// Lets one host do what two did, or leaves it out where it does nothing.
    fn merge_hosts(&mut self) {
        let hosts: Vec<String> = self.plan.topology.hosts().map(str::to_owned).collect();
        for host in hosts.iter().rev().filter(|host| *host != MASTER) {
            for other in hosts.iter().filter(|other| *other != host) {
                let merged = hosts::merged(&self.plan, host, other);
                if merged.is_some_and(|candidate| self.attempt(candidate)) {
                    break;
                }
            }
        }
    }

    /// Lowers each number of faults, operations and clients that makes less of them when it is lower.
    fn lower_numbers(&mut self) {
        for pointer in numbers::pointers(&self.plan) {
            self.lower(|plan| numbers::get(plan, &pointer), |plan, value| numbers::set(plan, &pointer, value));
        }
    }

    /// Moves what comes after a time without anything closer to what comes before it.
    fn close_gaps(&mut self) {
        for nth in 0.. {
            if nth >= times::count(&self.plan) || self.runs_left == 0 {
                break;
            }
            self.lower(|plan| times::gap(plan, nth), |plan, gap| times::with_gap(plan, nth, gap));
        }
    }

    /// Makes each time a round one, if it can be.
    fn round_times(&mut self) {
        for nth in 0..times::count(&self.plan) {
            for unit_ms in [1_000, 100] {
                let rounded = times::rounded(&self.plan, nth, unit_ms);
                if rounded.is_some_and(|candidate| self.attempt(candidate)) {
                    break;
                }
            }
        }
    }

    /// Lowers a number as far as it goes, to a tenth of what it comes to.
    fn lower(&mut self, get: impl Fn(&Plan) -> Option<u64>, with: impl Fn(&Plan, u64) -> Option<Plan>) {
        let Some(mut value) = get(&self.plan).filter(|value| *value > 0) else { return };
        let mut too_low = None;
        let mut next = 0;
        loop {
            match with(&self.plan, next).is_some_and(|candidate| self.attempt(candidate)) {
                true => value = next,
                false => too_low = Some(next),
            }
            let Some(too_low) = too_low else { return };
            if value - too_low <= (value / 10).max(1) || self.runs_left == 0 {
                return;
            }
            next = too_low + (value - too_low) / 2;
        }
    }
}

#[cfg(test)]
mod tests;
