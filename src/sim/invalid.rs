//! Checks on the values of a plan.

use thiserror::Error;

/// A value in a plan that cannot be used. The message follows the name of the place where the value stands.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum InvalidValue {
    /// The name of a host that the deployment does not have.
    #[error("names the host `{host}`: use one of {}, or add it to the topology", known.join(", "))]
    UnknownHost {
        /// The name.
        host: String,
        /// The hosts of the deployment.
        known: Vec<String>,
    },
    /// The name of a stream that is not in the database.
    #[error("names the stream `{stream}`: use one of {}", known.join(", "))]
    UnknownStream {
        /// The name.
        stream: String,
        /// The streams in the database.
        known: Vec<&'static str>,
    },
    /// A fault between a host and itself.
    #[error("is between `{host}` and itself: name two hosts")]
    SameHost {
        /// The host.
        host: String,
    },
    /// A fault on no host.
    #[error("names no host: name at least one, or leave the fault out")]
    NoHost,
    /// A minimum that is larger than its maximum.
    #[error("has an empty range, from {min} to {max}: raise the maximum or lower the minimum")]
    EmptyRange {
        /// The minimum.
        min: u64,
        /// The maximum.
        max: u64,
    },
    /// A number below its lower bound.
    #[error("has {value} where {min} is the least: raise it, or leave it out")]
    TooSmall {
        /// The number.
        value: u64,
        /// The lower bound.
        min: u64,
    },
    /// A number above its upper bound.
    #[error("has {value} where {max} is the most: lower it")]
    TooLarge {
        /// The number.
        value: u64,
        /// The upper bound.
        max: u64,
    },
}

/// Checks that `value` is at least `min`.
///
/// # Errors
/// [`InvalidValue::TooSmall`] if it is not.
pub(super) fn check_at_least(value: u64, min: u64) -> Result<(), InvalidValue> {
    if value >= min { Ok(()) } else { Err(InvalidValue::TooSmall { value, min }) }
}

/// Checks that `value` is at most `max`.
///
/// # Errors
/// [`InvalidValue::TooLarge`] if it is not.
pub(super) fn check_at_most(value: u64, max: u64) -> Result<(), InvalidValue> {
    if value <= max { Ok(()) } else { Err(InvalidValue::TooLarge { value, max }) }
}

/// Checks that `value` is a number out of a thousand.
///
/// # Errors
/// [`InvalidValue::TooLarge`] if it is not.
pub(super) fn check_per_mille(value: u32) -> Result<(), InvalidValue> {
    check_at_most(value.into(), 1_000)
}

/// Checks that the range from `min` to `max` is not empty.
///
/// # Errors
/// [`InvalidValue::EmptyRange`] if it is.
pub(super) fn check_range(min: u64, max: u64) -> Result<(), InvalidValue> {
    if min <= max { Ok(()) } else { Err(InvalidValue::EmptyRange { min, max }) }
}
