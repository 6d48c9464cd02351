//! Planted defects: how soon the storm finds what is known to be wrong.
//!
//! A green run means something only if it would have gone red. So defects that Synapse's replication had, and some that
//! this one had, are kept as patches. Each is planted in a copy of the committed tree, the copy is built, and the storm
//! looks for it: in several disjoint ranges of seeds, as one of them may be lucky. What it finds is shrunk, and the
//! shrunk plan must pass on the program without the defect.

mod patch;
mod workshop;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use patch::{Patch, PatchError};
pub use workshop::{Workshop, WorkshopError};

use super::corpus::{Entry, EntryError};
use super::plan::Plan;
use super::soak::SeedRange;

/// How a defect is looked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// In how many ranges of seeds.
    pub ranges: u64,
    /// How many seeds a range has.
    pub seeds: u64,
    /// How many seeds run at the same time.
    pub jobs: usize,
    /// How many runs shrinking may take.
    pub shrink_runs: usize,
}

/// How many faults and operations a shrunk plan may have to count as one that a person can read.
pub const SHRUNK_MAX: (usize, usize) = (5, 20);

/// What came of planting a defect.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// The defect's name.
    pub name: String,
    /// Where it is known from.
    pub upstream: String,
    /// What it has to violate, or how else its runs have to end.
    pub invariant: String,
    /// In which scenario it was looked for.
    pub scenario: String,
    /// Why no seeds are looked through for it, if they are not: its entry of the corpus has to find it instead.
    pub rare: Option<String>,
    /// Whether it was found in every range; a rare one by its entry.
    pub found: bool,
    /// How many seeds each range needed; none where it was not found.
    pub seeds_to_find: Vec<Option<u64>>,
    /// The plan that is left of one that found it.
    pub shrunk: Option<Size>,
    /// Whether that plan passes without the defect.
    pub passes_without: bool,
    /// Whether the defect's entry of the corpus still finds it; none if there is no entry.
    pub corpus_finds: Option<bool>,
    /// Seconds of real time that the build took.
    pub build_s: u64,
    /// Seconds of real time that all of it took.
    pub wall_s: u64,
}

/// How large a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Operations. A burst counts as one.
    pub operations: usize,
    /// Clients.
    pub clients: usize,
    /// Hosts.
    pub hosts: usize,
}

impl Size {
    /// Whether a person can read it: see [`SHRUNK_MAX`].
    pub fn is_small(&self) -> bool {
        let (faults_max, operations_max) = SHRUNK_MAX;
        self.faults <= faults_max && self.operations <= operations_max
    }
}

impl From<&Plan> for Size {
    fn from(plan: &Plan) -> Self {
        Size {
            faults: plan.faults.len(),
            operations: plan.operations.len(),
            clients: plan.clients.len(),
            hosts: plan.topology.hosts().count(),
        }
    }
}

impl Measured {
    /// The median of what the ranges needed; one in which it was not found counts as endless. None if it was not found
    /// in most of them.
    pub fn median(&self) -> Option<u64> {
        let mut sorted = self.seeds_to_find.clone();
        sorted.sort_unstable_by_key(|seeds| seeds.unwrap_or(u64::MAX));
        sorted.get(sorted.len() / 2).copied().flatten()
    }

    /// Whether all is as it has to be.
    pub fn is_well(&self) -> bool {
        self.found
            && self.passes_without
            && self.corpus_finds != Some(false)
            && self.shrunk.is_some_and(|size| size.is_small())
    }
}

/// Plants `patch`, looks for it, and shrinks what found it. Returns the shrunk plan's entry too, if it was found.
///
/// # Errors
/// It does not apply or cannot be built, or a program could not be run. That it is not found is no error.
pub fn measure(
    workshop: &Workshop,
    patch: &Patch,
    options: &Options,
    corpus: &Path,
    mut say: impl FnMut(&str),
) -> Result<(Measured, Option<Entry>), WorkshopError> {
    let stopwatch = workshop::Stopwatch::start();
    say("building");
    let planted = workshop.plant(patch)?;
    let build_s = stopwatch.elapsed_s();
    let mut measured = Measured {
        name: patch.name.clone(),
        upstream: patch.upstream.clone(),
        invariant: patch.invariant.clone(),
        scenario: patch.scenario.to_string(),
        rare: patch.rare.clone(),
        found: false,
        seeds_to_find: Vec::new(),
        shrunk: None,
        passes_without: false,
        corpus_finds: None,
        build_s,
        wall_s: 0,
    };
    let mut finders = Vec::new();
    let ranges = if patch.rare.is_some() { 0 } else { options.ranges };
    for range in 0..ranges {
        let seeds = SeedRange::new(range * options.seeds, options.seeds);
        say(&format!("looking for it in seeds {seeds}"));
        let found = planted.search(patch, seeds, options.jobs)?;
        measured.seeds_to_find.push(found.map(|found| found.seeds));
        finders.extend(found.map(|found| found.seed));
    }
    let mut least: Option<Entry> = None;
    for seed in finders {
        say(&format!("shrinking seed {seed}"));
        let entry = planted.shrink(patch, seed, options.shrink_runs)?;
        let size = |entry: &Entry| (entry.plan.faults.len(), entry.plan.operations.len());
        if least.as_ref().is_none_or(|least| size(&entry) < size(least)) {
            least = Some(entry);
        }
        // Another seed may shrink to less where this one did not shrink to little.
        if least.as_ref().is_some_and(|least| Size::from(&least.plan).is_small()) {
            break;
        }
    }
    if let Some(entry) = &mut least {
        measured.shrunk = Some(Size::from(&entry.plan));
        let verdict = entry.replay();
        measured.passes_without = verdict.passed();
        entry.name.clone_from(&patch.name);
        entry.defect = Some(patch.name.clone());
        entry.reaches = Entry::reached(&verdict);
        entry.story = format!("{} The least plan that shows it: {}", patch.story, entry.story);
    }
    if let Some(path) = entry_of(corpus, &patch.name)? {
        say("replaying its entry of the corpus");
        measured.corpus_finds = Some(planted.fails_on(&path)?);
        if patch.rare.is_some() {
            let entry = Entry::read(&path)?;
            measured.shrunk = Some(Size::from(&entry.plan));
            measured.passes_without = entry.replay().passed();
        }
    }
    measured.found = match patch.rare {
        Some(_) => measured.corpus_finds == Some(true),
        None => measured.seeds_to_find.iter().all(Option::is_some),
    };
    measured.wall_s = stopwatch.elapsed_s();
    Ok((measured, least))
}

/// The file of the corpus that is about a defect, if there is one.
///
/// # Errors
/// The corpus cannot be read.
pub fn entry_of(corpus: &Path, defect: &str) -> Result<Option<PathBuf>, EntryError> {
    let mut paths =
        std::fs::read_dir(corpus)?.map(|file| file.map(|file| file.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    for path in paths.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "json")) {
        if Entry::read(&path)?.defect.as_deref() == Some(defect) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seeds_to_find: &[Option<u64>]) -> Measured {
        Measured {
            name: "a".into(),
            upstream: "Synapse #1".into(),
            invariant: "no_missed_rows".into(),
            scenario: "storm".into(),
            rare: None,
            found: seeds_to_find.iter().all(Option::is_some),
            seeds_to_find: seeds_to_find.into(),
            shrunk: Some(Size { faults: 1, operations: 2, clients: 0, hosts: 2 }),
            passes_without: true,
            corpus_finds: None,
            build_s: 1,
            wall_s: 2,
        }
    }

    #[test]
    fn the_median_counts_a_range_without_a_find_as_endless() {
        assert_eq!(measured(&[Some(9), Some(1), Some(5), Some(7), Some(2)]).median(), Some(5));
        assert_eq!(measured(&[None, Some(1), Some(5), Some(7), Some(2)]).median(), Some(5));
        assert_eq!(measured(&[None, Some(1), None, Some(7), None]).median(), None);
        assert_eq!(measured(&[]).median(), None);
    }

    #[test]
    fn all_is_well_when_it_is_found_everywhere_small_and_only_with_the_defect() {
        assert!(measured(&[Some(1)]).is_well());
        assert!(!measured(&[Some(1), None]).is_well());
        assert!(!Measured { passes_without: false, ..measured(&[Some(1)]) }.is_well());
        assert!(!Measured { corpus_finds: Some(false), ..measured(&[Some(1)]) }.is_well());
        let large = |faults, operations| Some(Size { faults, operations, clients: 0, hosts: 2 });
        assert!(Measured { shrunk: large(5, 20), ..measured(&[Some(1)]) }.is_well());
        assert!(!Measured { shrunk: large(6, 1), ..measured(&[Some(1)]) }.is_well());
        assert!(!Measured { shrunk: large(1, 21), ..measured(&[Some(1)]) }.is_well());
    }
}
