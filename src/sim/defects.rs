//! Planted defects: a measurement of how soon the storm finds known defects.
//!
//! A passing run is worth something only if a defect would have made it fail. So defects that Synapse's replication had,
//! and some that Squall had, are kept as patches. Each is planted in a copy of the committed tree, and the copy is built.
//! The storm then searches several disjoint ranges of seeds, because one range may be lucky. A plan that finds the defect
//! is shrunk, and the shrunk plan must pass on the program without the defect.

mod builder;
mod patch;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use builder::{BuildError, DefectBuilder};
pub use patch::{DefectSet, Patch, PatchError};

use super::corpus::{Entry, EntryError};
use super::failures::current_name;
use super::plan::Plan;
use super::soak::SeedRange;

/// The options of a measurement.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of ranges of seeds; with 0, only the entries of the corpus are replayed.
    pub ranges: u64,
    /// Number of seeds in a range; none for that of the defect's set.
    pub seeds: Option<u64>,
    /// Number of seeds that run at the same time.
    pub jobs: NonZeroUsize,
    /// Most runs that shrinking takes.
    pub shrink_runs: usize,
}

/// Most faults of a shrunk plan that is small enough to be read.
pub const SHRUNK_FAULTS_MAX: usize = 5;
/// Most operations of a shrunk plan that is small enough to be read.
pub const SHRUNK_OPERATIONS_MAX: usize = 20;

/// The result of measuring a defect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The defect's name.
    pub name: String,
    /// The source of the defect.
    pub upstream: String,
    /// The name of the failure: the invariant that it violates, or another conclusion.
    pub invariant: String,
    /// The scenario whose seeds were searched.
    pub scenario: String,
    /// The rare situations that it takes, in order; none for a defect of the common set.
    #[serde(alias = "rare")]
    pub needs: Option<String>,
    /// True if the defect was found in every range. Where no range was searched, and for a deep defect, its entry of the
    /// corpus counts instead, if there is one.
    pub found: bool,
    /// Number of seeds that each range took; none for a range that did not find the defect.
    pub seeds_to_find: Vec<Option<u64>>,
    /// Number of seeds after which the search of a range ended. Measurements were written without it when it was a thousand.
    #[serde(default = "common_seeds_max")]
    pub seeds_max: u64,
    /// The size of the smallest plan that finds the defect.
    pub shrunk: Option<Size>,
    /// True if that plan passes without the defect.
    pub passes_without: bool,
    /// True if the defect's entry of the corpus finds it; none if there is no entry.
    pub corpus_finds: Option<bool>,
    /// Real time of the build, in seconds.
    pub build_s: u64,
    /// Real time of the whole measurement, in seconds.
    pub wall_s: u64,
}

fn common_seeds_max() -> u64 {
    DefectSet::Common.seeds_max()
}

/// The size of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Returns true if the plan is small enough to be read: see [`SHRUNK_FAULTS_MAX`] and [`SHRUNK_OPERATIONS_MAX`].
    pub fn is_small(&self) -> bool {
        self.faults <= SHRUNK_FAULTS_MAX && self.operations <= SHRUNK_OPERATIONS_MAX
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
    /// Reads a measurement from the JSON object that [`Measured`] serialises to. The invariant may have an old name.
    ///
    /// # Errors
    /// The text is not such an object.
    pub fn from_json(text: &str) -> serde_json::Result<Measured> {
        let measured: Measured = serde_json::from_str(text)?;
        Ok(Measured { invariant: current_name(&measured.invariant).to_owned(), ..measured })
    }

    /// Returns the median number of seeds over the ranges. A range that did not find the defect counts as infinite, so
    /// the result is none if most ranges did not.
    pub fn median(&self) -> Option<u64> {
        let mut sorted = self.seeds_to_find.clone();
        sorted.sort_unstable_by_key(|seeds| seeds.unwrap_or(u64::MAX));
        sorted.get(sorted.len() / 2).copied().flatten()
    }

    fn is_found(&self, set: DefectSet) -> bool {
        let in_every_range = !self.seeds_to_find.is_empty() && self.seeds_to_find.iter().all(Option::is_some);
        match set {
            DefectSet::Common if !self.seeds_to_find.is_empty() => in_every_range,
            DefectSet::Common | DefectSet::Deep => self.corpus_finds.unwrap_or(in_every_range),
        }
    }

    /// Returns true if the defect was found everywhere, by a plan that passes without the defect. The plan must be small,
    /// unless the defect needs rare situations, which take many faults to bring about.
    pub fn is_well(&self) -> bool {
        self.found
            && self.passes_without
            && self.corpus_finds != Some(false)
            && self.shrunk.is_some_and(|size| size.is_small() || self.needs.is_some())
    }
}

/// Plants `patch`, searches seeds for the defect, and shrinks a plan that finds it. Returns the entry of the shrunk plan
/// too, if the defect was found. `report_progress` is called with the name of each step.
///
/// # Errors
/// The patch does not apply or cannot be built, or a program cannot be run. A defect that is not found is not an error.
pub fn measure(
    builder: &DefectBuilder,
    patch: &Patch,
    options: &Options,
    corpus: &Path,
    mut report_progress: impl FnMut(&str),
) -> Result<(Measured, Option<Entry>), BuildError> {
    let stopwatch = builder::Stopwatch::start();
    report_progress("building");
    let planted = builder.plant(patch)?;
    let build_s = stopwatch.elapsed_s();
    let mut measured = Measured {
        name: patch.name.clone(),
        upstream: patch.upstream.clone(),
        invariant: patch.invariant.clone(),
        scenario: patch.scenario.to_string(),
        needs: patch.needs.clone(),
        found: false,
        seeds_to_find: Vec::new(),
        seeds_max: options.seeds.unwrap_or(patch.set().seeds_max()),
        shrunk: None,
        passes_without: false,
        corpus_finds: None,
        build_s,
        wall_s: 0,
    };
    let mut finders = Vec::new();
    for range in 0..options.ranges {
        let seeds = SeedRange::new(range * measured.seeds_max, measured.seeds_max);
        report_progress(&format!("searching seeds {seeds}"));
        let found = planted.search(patch, seeds, options.jobs)?;
        measured.seeds_to_find.push(found.map(|found| found.seeds));
        finders.extend(found.map(|found| found.seed));
    }
    let mut smallest: Option<Entry> = None;
    for seed in finders {
        report_progress(&format!("shrinking seed {seed}"));
        let entry = planted.shrink(patch, seed, options.shrink_runs)?;
        let size = |entry: &Entry| (entry.plan.faults.len(), entry.plan.operations.len());
        if smallest.as_ref().is_none_or(|smallest| size(&entry) < size(smallest)) {
            smallest = Some(entry);
        }
        // Where this seed did not shrink to a small plan, another one may.
        if smallest.as_ref().is_some_and(|smallest| Size::from(&smallest.plan).is_small()) {
            break;
        }
    }
    if let Some(entry) = &mut smallest {
        measured.shrunk = Some(Size::from(&entry.plan));
        let verdict = entry.replay();
        measured.passes_without = verdict.passed();
        entry.name.clone_from(&patch.name);
        entry.defect = Some(patch.name.clone());
        entry.reaches = Entry::reached(&verdict);
        entry.story = format!("{} The smallest plan that shows it: {}", patch.story, entry.story);
    }
    if let Some(path) = entry_of(corpus, &patch.name)? {
        report_progress("replaying its entry of the corpus");
        measured.corpus_finds = Some(planted.fails_on(&path)?);
        // One range may only have a plan that does not shrink as far as the entry did.
        if !measured.shrunk.is_some_and(|size| size.is_small()) {
            let entry = Entry::read(&path)?;
            measured.shrunk = Some(Size::from(&entry.plan));
            measured.passes_without = entry.replay().passed();
        }
    }
    measured.found = measured.is_found(patch.set());
    measured.wall_s = stopwatch.elapsed_s();
    Ok((measured, smallest))
}

/// Returns the file of the corpus entry for a defect, if there is one.
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
            needs: None,
            found: seeds_to_find.iter().all(Option::is_some),
            seeds_to_find: seeds_to_find.into(),
            seeds_max: 1_000,
            shrunk: Some(Size { faults: 1, operations: 2, clients: 0, hosts: 2 }),
            passes_without: true,
            corpus_finds: None,
            build_s: 1,
            wall_s: 2,
        }
    }

    #[test]
    fn the_median_counts_a_range_without_a_find_as_infinite() {
        assert_eq!(measured(&[Some(9), Some(1), Some(5), Some(7), Some(2)]).median(), Some(5));
        assert_eq!(measured(&[None, Some(1), Some(5), Some(7), Some(2)]).median(), Some(5));
        assert_eq!(measured(&[None, Some(1), None, Some(7), None]).median(), None);
        assert_eq!(measured(&[]).median(), None);
    }

    #[test]
    fn without_a_search_and_for_a_deep_defect_the_entry_of_the_corpus_counts() {
        let is_found =
            |set, seeds: &[Option<u64>], corpus_finds| Measured { corpus_finds, ..measured(seeds) }.is_found(set);
        let (common, deep) = (DefectSet::Common, DefectSet::Deep);
        assert!(is_found(common, &[Some(1)], None) && is_found(deep, &[Some(1)], None));
        assert!(!is_found(common, &[None], Some(true)) && is_found(deep, &[None], Some(true)));
        assert!(is_found(common, &[Some(1)], Some(false)) && !is_found(deep, &[Some(1)], Some(false)));
        for set in [common, deep] {
            assert!(is_found(set, &[], Some(true)));
            assert!(!is_found(set, &[], Some(false)) && !is_found(set, &[], None), "nothing has found it");
        }
    }

    #[test]
    fn a_measurement_is_read_from_its_json_and_may_have_an_old_invariant() {
        let measured = measured(&[Some(9), None]);
        let json = serde_json::to_string(&measured).unwrap();
        assert_eq!(Measured::from_json(&json).unwrap(), measured);
        let old = json.replace("no_missed_rows", "strangers_isolated");
        assert_eq!(Measured::from_json(&old).unwrap().invariant, "unknown_rows_isolated");
        let older = json.replace("\"seeds_max\":1000,", "").replace("\"needs\":null", "\"rare\":\"two races\"");
        let read = Measured::from_json(&older).unwrap();
        assert_eq!((read.seeds_max, read.needs.as_deref()), (1_000, Some("two races")));
        assert!(Measured::from_json("{}").is_err());
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
        let needs = || Some("two races at once".to_owned());
        assert!(Measured { shrunk: large(7, 38), needs: needs(), ..measured(&[Some(1)]) }.is_well());
        assert!(!Measured { shrunk: None, needs: needs(), ..measured(&[Some(1)]) }.is_well());
    }
}
