//! Durations on the command line: `8h`, `1h30m`, `90s`.

use std::time::Duration;

use thiserror::Error;

/// The longest duration that is accepted. No soak lasts longer, and the clock could not wait for much more.
const DURATION_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A duration that is not accepted.
#[derive(Debug, Error, PartialEq)]
pub(super) enum DurationError {
    /// The text is not a duration.
    #[error("{0:?} is not a duration ({1}): write days, hours, minutes and seconds, such as 8h, 1h30m or 90s")]
    Malformed(String, humantime::DurationError),
    /// The duration is zero.
    #[error("{0:?} is zero: write a longer time, such as 90s")]
    Zero(String),
    /// The duration is longer than [`DURATION_MAX`].
    #[error("{0:?} is longer than a year: write a shorter time, such as 30d")]
    TooLong(String),
}

/// Parses a duration of at most a year.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(DurationError::Zero(text.to_owned())),
        Ok(duration) if duration > DURATION_MAX => Err(DurationError::TooLong(text.to_owned())),
        Ok(duration) => Ok(duration),
        Err(error) => Err(DurationError::Malformed(text.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_the_sum_of_its_parts() {
        let parsed = ["90s", "45m", "8h", "1h30m", "1d2h3m4s"].map(|text| parse(text).unwrap().as_secs());
        assert_eq!(parsed, [90, 2_700, 28_800, 5_400, 93_784]);
        assert_eq!(parse("1500ms"), Ok(Duration::from_millis(1_500)));
    }

    #[test]
    fn a_text_that_is_not_a_duration_is_refused() {
        for text in ["", "8", "h", "8x", "-1h", "1e3s", "99999999999999999999s", "1hé"] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, DurationError::Malformed(..)), "{text:?}: {error}");
            assert!(error.to_string().ends_with("such as 8h, 1h30m or 90s"), "{error}");
        }
    }

    #[test]
    fn no_time_and_more_than_a_year_are_refused() {
        assert_eq!(parse("0s"), Err(DurationError::Zero("0s".into())));
        assert_eq!(parse("400d"), Err(DurationError::TooLong("400d".into())));
    }
}
