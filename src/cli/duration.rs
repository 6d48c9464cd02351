//! Durations on the command line: `8h`, `1h30m`, `90s`.

use std::time::Duration;

use thiserror::Error;

/// What is wrong with a duration.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum DurationError {
    /// It is not of the form.
    #[error("{0:?} is no duration: write days, hours, minutes and seconds, such as 8h, 1h30m or 90s")]
    Form(String),
    /// It is over before anything happens.
    #[error("{0:?} is no time at all")]
    Zero(String),
}

/// The units, the longest first, and how many seconds each has.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Parses whole numbers of units, each unit at most once and the longer ones first.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    let form = || DurationError::Form(text.to_owned());
    let mut units = UNITS.into_iter();
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?;
        let number: u64 = rest[..end].parse().map_err(|_| form())?;
        let unit = rest[end..].chars().next().ok_or_else(form)?;
        let (_, unit_seconds) = units.find(|(name, _)| *name == unit).ok_or_else(form)?;
        let more = number.checked_mul(unit_seconds).ok_or_else(form)?;
        // A year is more than any soak; beyond the clock's own range it could not be waited for.
        seconds = seconds.checked_add(more).filter(|sum| *sum <= 366 * 86_400).ok_or_else(form)?;
        rest = &rest[end + 1..];
    }
    match seconds {
        0 if text.is_empty() => Err(form()),
        0 => Err(DurationError::Zero(text.to_owned())),
        _ => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_the_sum_of_its_parts() {
        let parsed = ["90s", "45m", "8h", "1h30m", "1d2h3m4s"].map(|text| parse(text).unwrap().as_secs());
        assert_eq!(parsed, [90, 2_700, 28_800, 5_400, 93_784]);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "8", "h", "8x", "8 h", "-1h", "1.5h", "30m1h", "1h1h", "99999999999999999999s", "400d", "1hé"]
        {
            assert_eq!(parse(text), Err(DurationError::Form(text.into())));
        }
        assert_eq!(parse("0s"), Err(DurationError::Zero("0s".into())));
    }
}
