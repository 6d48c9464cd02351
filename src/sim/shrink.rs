//! Shrinking: finds the smallest plan that still fails in the same way.
//!
//! A drawn plan has tens of faults and hundreds of operations, of which a handful matter. Shrinking removes or weakens one
//! part after another and runs the rest. It keeps a smaller plan if its run still has the fingerprint. This works because
//! every random draw is keyed by its purpose, so the parts that are left behave as before.
//!
//! They do not behave exactly as before: one packet more or less shifts the latencies of later packets, which may decide
//! a race. Therefore a candidate that does not fail is tried again with other seeds of the run. The plan adopts the seed
//! that fails.
//!
//! The steps that gain most come first: everything after the failure, then whole faults, clients and operations, then
//! settings, hosts, numbers and times. They are repeated until nothing changes or the budget is spent. The budget is
//! counted in runs, so the same plan shrinks to the same result on every machine.

mod hosts;
mod numbers;
mod settings;
mod times;

use super::plan::Plan;
use super::runner;
use super::verdict::Verdict;
use squall_netsim::EngineName;
use squall_protocol::MASTER;

/// Most runs that shrinking takes by default.
pub const RUNS_MAX: usize = 1_000;
/// Number of seeds that a candidate is tried with before it counts as passing, after the first round.
const SEEDS_TRIED: u64 = 4;

/// The result of shrinking a plan.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest plan that was found to fail in the same way.
    pub plan: Plan,
    /// The verdict on that plan.
    pub verdict: Verdict,
    /// Number of runs.
    pub runs: usize,
    /// True if the budget was spent. A larger budget may give a smaller plan.
    pub is_cut_short: bool,
}

/// Shrinks `plan`, which fails on `engine` with `fingerprint`, in at most `runs_max` runs. Returns none if the plan does
/// not fail in that way.
pub fn shrink(engine: EngineName, plan: &Plan, fingerprint: &str, runs_max: usize) -> Option<Shrunk> {
    let verdict = runner::judge_on(engine, plan);
    let mut runs = 1;
    if !shows(&verdict, fingerprint) {
        return None;
    }
    let failed_at_ms = verdict.violation.as_ref().map(|finding| finding.at_ms);
    // A candidate's run ends at the failure. The rest could take minutes, where the run would wait for rows in vain.
    let fails = |candidate: &Plan| {
        runs += 1;
        shows(&runner::judge_until(fingerprint, engine, candidate), fingerprint)
    };
    let mut shrinker = Shrinker::new(plan, runs_max.saturating_sub(2), fails);
    shrinker.run(failed_at_ms);
    let Shrinker { plan: smallest, runs_left, .. } = shrinker;
    let is_cut_short = runs_left == 0;
    // The result is run to its end, unless it is the original plan.
    if runs == 1 {
        return Some(Shrunk { plan: smallest, verdict, runs, is_cut_short });
    }
    let verdict = runner::judge_on(engine, &smallest);
    Some(Shrunk { plan: smallest, verdict, runs: runs + 1, is_cut_short })
}

fn shows(verdict: &Verdict, fingerprint: &str) -> bool {
    verdict.fingerprints().iter().any(|shown| shown == fingerprint)
}

/// Makes a plan smaller as long as `fails` returns true for it.
struct Shrinker<F> {
    plan: Plan,
    fails: F,
    runs_left: usize,
    /// Number of seeds that a candidate is tried with.
    seeds_tried: u64,
}

impl<F: FnMut(&Plan) -> bool> Shrinker<F> {
    fn new(plan: &Plan, runs_max: usize, fails: F) -> Self {
        let mut plan = plan.clone();
        // An operation keeps its id when operations before it are removed.
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
            self.remove_items(|plan| &mut plan.faults);
            self.remove_items(|plan| &mut plan.clients);
            self.remove_items(|plan| &mut plan.operations);
            for simpler in settings::SIMPLER {
                self.attempt(simpler(self.plan.clone()));
            }
            for simpler in settings::simpler_limits() {
                self.attempt(Plan { limits: simpler(self.plan.limits), ..self.plan.clone() });
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

    /// Replaces the plan by `candidate` if that fails. Returns true if it does.
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

    /// Removes as many items of a list as it can: all of them, then halves, quarters and so on, down to single items. It
    /// begins at the end of the list, because late items are needed least.
    fn remove_items<T: Clone>(&mut self, list: impl Fn(&mut Plan) -> &mut Vec<T>) {
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

    /// Moves the work of one host to another one, and removes hosts without work.
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

    /// Lowers each number in faults, operations and clients whose lower values weaken them.
    fn lower_numbers(&mut self) {
        for pointer in numbers::pointers(&self.plan) {
            self.lower(|plan| numbers::get(plan, &pointer), |plan, value| numbers::set(plan, &pointer, value));
        }
    }

    /// Shortens each time span in which nothing happens.
    fn close_gaps(&mut self) {
        for nth in 0.. {
            if nth >= times::count(&self.plan) || self.runs_left == 0 {
                break;
            }
            self.lower(|plan| times::gap(plan, nth), |plan, gap| times::with_gap(plan, nth, gap));
        }
    }

    /// Rounds each time, where the plan still fails.
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

    /// Lowers a number to its smallest value that fails, within a tenth of that value.
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
