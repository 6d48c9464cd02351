//! The seeds of a soak: a range, or one shard of it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A range of seeds from `first` up to but not including `end`. It is never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedRange {
    pub(super) first: u64,
    pub(super) end: u64,
}

/// A text that is not a range of seeds.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SeedRangeError {
    /// The text does not have the form `A..B`.
    #[error("{0:?} is not a range of seeds: write A..B, such as 0..500")]
    Form(String),
    /// One end of the range is not a seed.
    #[error("{0:?} is not a seed: write a number from 0 to 18446744073709551615")]
    Seed(String),
    /// The range is empty.
    #[error("{0}..{1} has no seeds: the end must be larger than the beginning")]
    Empty(u64, u64),
}

impl SeedRange {
    /// Returns the range of `seeds` seeds from `first` on.
    ///
    /// # Panics
    /// If `seeds` is zero.
    pub fn new(first: u64, seeds: u64) -> Self {
        assert!(seeds > 0, "a range is never empty");
        SeedRange { first, end: first.saturating_add(seeds) }
    }

    /// Returns the seeds.
    pub fn seeds(self) -> std::ops::Range<u64> {
        self.first..self.end
    }

    /// Returns the number of seeds.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        self.end - self.first
    }
}

impl FromStr for SeedRange {
    type Err = SeedRangeError;

    fn from_str(text: &str) -> Result<Self, SeedRangeError> {
        let (first, end) = text.split_once("..").ok_or_else(|| SeedRangeError::Form(text.into()))?;
        let seed = |text: &str| text.parse().map_err(|_| SeedRangeError::Seed(text.into()));
        let first = seed(first)?;
        let end = seed(end)?;
        if first < end { Ok(SeedRange { first, end }) } else { Err(SeedRangeError::Empty(first, end)) }
    }
}

impl fmt::Display for SeedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// A shard of the seeds: those whose remainder is `index` when divided by `of`. Each of several machines runs one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    of: u64,
}

/// A text that is not a shard.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ShardError {
    /// The text does not have the form `I/N`.
    #[error("{0:?} is not a shard: write I/N, such as 0/4 for the first of four")]
    Form(String),
    /// The index is not less than the number of shards.
    #[error("there is no shard {0} of {1}: the shards of {1} are 0/{1} to {last}/{1}", last = .1 - 1)]
    TooLarge(u64, u64),
    /// The number of shards is zero.
    #[error("a soak cannot be divided into 0 shards")]
    Zero,
}

impl Shard {
    /// The only shard of one: every seed.
    pub const WHOLE: Shard = Shard { index: 0, of: 1 };

    fn contains(self, seed: u64) -> bool {
        seed % self.of == self.index
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let form = || ShardError::Form(text.into());
        let (index, of) = text.split_once('/').ok_or_else(form)?;
        let index = index.parse().map_err(|_| form())?;
        let of = of.parse().map_err(|_| form())?;
        match of {
            0 => Err(ShardError::Zero),
            _ if index >= of => Err(ShardError::TooLarge(index, of)),
            _ => Ok(Shard { index, of }),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// The seeds of a soak, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeds {
    /// The seeds of a range that belong to a shard.
    Range(SeedRange, Shard),
    /// The seeds from the given one on that belong to a shard.
    From(u64, Shard),
}

impl Seeds {
    /// Returns the number of seeds; none if they have no end.
    pub fn count(self) -> Option<u64> {
        match self {
            Seeds::Range(SeedRange { first, end }, shard) => {
                // The seeds below `end`, less the seeds below `first`.
                let below = |seed: u64| seed / shard.of + u64::from(seed % shard.of > shard.index);
                Some(below(end) - below(first))
            }
            Seeds::From(..) => None,
        }
    }

    /// Returns the seeds in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        let (first, end, shard) = match self {
            Seeds::Range(SeedRange { first, end }, shard) => (first, end, shard),
            Seeds::From(first, shard) => (first, u64::MAX, shard),
        };
        (first..end).filter(move |seed| shard.contains(*seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_is_two_numbers_the_first_of_them_smaller() {
        assert_eq!("3..7".parse(), Ok(SeedRange { first: 3, end: 7 }));
        assert_eq!("7".parse::<SeedRange>(), Err(SeedRangeError::Form("7".into())));
        assert_eq!("7..x".parse::<SeedRange>(), Err(SeedRangeError::Seed("x".into())));
        assert_eq!("-1..3".parse::<SeedRange>(), Err(SeedRangeError::Seed("-1".into())));
        assert_eq!("7..7".parse::<SeedRange>(), Err(SeedRangeError::Empty(7, 7)));
        assert_eq!("7..3".parse::<SeedRange>(), Err(SeedRangeError::Empty(7, 3)));
    }

    #[test]
    fn a_shard_is_one_of_those_that_there_are() {
        assert_eq!("1/3".parse(), Ok(Shard { index: 1, of: 3 }));
        assert_eq!("3/3".parse::<Shard>(), Err(ShardError::TooLarge(3, 3)));
        assert_eq!("0/0".parse::<Shard>(), Err(ShardError::Zero));
        assert_eq!("1".parse::<Shard>(), Err(ShardError::Form("1".into())));
        assert_eq!("a/b".parse::<Shard>(), Err(ShardError::Form("a/b".into())));
        assert_eq!(ShardError::TooLarge(3, 3).to_string(), "there is no shard 3 of 3: the shards of 3 are 0/3 to 2/3");
    }

    #[test]
    fn the_shards_of_a_range_have_each_seed_once() {
        for (first, end) in [(0, 10), (7, 8), (5, 23), (u64::MAX - 9, u64::MAX)] {
            let range = SeedRange { first, end };
            for of in 1..12 {
                let shards = (0..of).map(|index| Seeds::Range(range, Shard { index, of }));
                let mut all: Vec<u64> = Vec::new();
                for shard in shards {
                    let seeds: Vec<u64> = shard.iter().collect();
                    assert_eq!(shard.count(), Some(seeds.len() as u64), "{shard:?}");
                    assert!(seeds.is_sorted());
                    all.extend(seeds);
                }
                all.sort_unstable();
                assert!(all.into_iter().eq(first..end), "{range} in {of}");
            }
        }
    }

    #[test]
    fn a_shard_without_an_end_has_every_nth_seed_from_the_first() {
        let seeds = Seeds::From(10, Shard { index: 1, of: 4 });
        assert_eq!((seeds.count(), seeds.iter().take(3).collect()), (None, vec![13, 17, 21]));
    }
}
