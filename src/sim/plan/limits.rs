//! The limits of the instances in a plan: only those that differ from production.

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Defines [`LimitsPlan`] from the fields of [`Limits`] that a plan can set, each with the least value that makes sense.
macro_rules! limits {
    ($($field:ident: $type:ty, at least $least:literal;)*) => {
        /// Limits of the instances that differ from those of production. Each is documented at [`Limits`].
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct LimitsPlan {
            $(
                #[doc = concat!("See [`Limits::", stringify!($field), "`]; at least ", stringify!($least), ".")]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl LimitsPlan {
            /// Functions that each give one limit the amount of production.
            pub(in crate::sim) const SIMPLER: &'static [fn(LimitsPlan) -> LimitsPlan] =
                &[$(|limits| LimitsPlan { $field: None, ..limits },)*];

            /// Returns the limits of the instances.
            pub fn limits(&self) -> Limits {
                let production = Limits::default();
                Limits { $($field: self.$field.unwrap_or(production.$field),)* }
            }

            /// Returns the place, the value and the least value of each limit that is set.
            pub(super) fn set(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
                [$((concat!("limits.", stringify!($field)), self.$field.map(|value| value as u64), $least),)*]
                    .into_iter()
                    .filter_map(|(place, value, least)| Some((place, value?, least)))
            }
        }
    };
}

limits! {
    commands_queued_max: usize, at least 50;
    items_queued_max: usize, at least 1;
    batch_rows_max: usize, at least 1;
    rows_per_query: usize, at least 2;
    unanswered_max: usize, at least 1;
    tcp_connections_max: usize, at least 1;
    http_connections_max: usize, at least 1;
    answers_kept_max: usize, at least 1;
    answers_kept_bytes_max: usize, at least 1;
    answers_kept_ms: u64, at least 1;
    cached_max: usize, at least 1;
    typing_kept_ms: u64, at least 1;
}

impl LimitsPlan {
    /// Returns true if every limit is that of production.
    pub fn is_production(&self) -> bool {
        *self == LimitsPlan::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_set_is_that_of_production() {
        let limits = LimitsPlan { rows_per_query: Some(5), ..LimitsPlan::default() };
        assert_eq!(limits.limits(), Limits { rows_per_query: 5, ..Limits::default() });
        assert!(!limits.is_production() && LimitsPlan::default().is_production());
        assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"rows_per_query":5}"#);
    }

    #[test]
    fn each_limit_can_be_given_the_amount_of_production_by_itself() {
        let text = r#"{"commands_queued_max":60,"items_queued_max":1,"batch_rows_max":1,"rows_per_query":2,
            "unanswered_max":1,"tcp_connections_max":1,"http_connections_max":1,"answers_kept_max":1,
            "answers_kept_bytes_max":1,"answers_kept_ms":1,"cached_max":1,"typing_kept_ms":1}"#;
        let all: LimitsPlan = serde_json::from_str(text).unwrap();
        assert_eq!(all.set().count(), LimitsPlan::SIMPLER.len());
        for simpler in LimitsPlan::SIMPLER {
            assert_eq!(simpler(all).set().count(), LimitsPlan::SIMPLER.len() - 1);
        }
        let none = LimitsPlan::SIMPLER.iter().fold(all, |limits, simpler| simpler(limits));
        assert!(none.is_production());
    }
}
