//! The shares that the ports of a process have in the files that it may open.
//!
//! A connection takes a file descriptor. Clients that take all of them would keep the process from opening its database,
//! from connecting to other instances, and from answering its health check. So each port has a share, and the rest is left
//! for everything else.

use thiserror::Error;

use crate::limits::{HTTP_CONNECTIONS_MAX, Limits, TCP_CONNECTIONS_MAX};
use crate::metrics::METRICS_CONNECTIONS_MAX;

/// Number of descriptors for everything but connections to the ports and to other instances: the files of the database, the
/// log, the ports themselves, the broker. An idle instance has 16 to 20.
pub const DESCRIPTORS_RESERVED: usize = 40;
/// Smallest number of descriptors with which an instance starts.
pub const DESCRIPTORS_MIN: usize = 64;

/// Number of descriptors with which each port has all the connections of [`Limits::default`]. A request that is served may
/// send one to another instance, so each HTTP connection counts twice.
const DESCRIPTORS_ENOUGH: usize =
    DESCRIPTORS_RESERVED + METRICS_CONNECTIONS_MAX + TCP_CONNECTIONS_MAX + 2 * HTTP_CONNECTIONS_MAX;

/// The process may open too few files.
#[derive(Debug, Error)]
#[error(
    "this process may open {limit} files, and an instance needs {DESCRIPTORS_MIN}: raise the limit (ulimit -n, or \
    LimitNOFILE= of systemd)"
)]
pub struct TooFewDescriptors {
    limit: usize,
}

/// The largest numbers of connections to the ports of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    tcp: usize,
    http: usize,
    /// The number for the metrics and the health check.
    pub(super) metrics: usize,
}

impl Shares {
    /// Raises the limit of open files as far as needed and allowed, and shares it out.
    pub(super) fn of_process() -> Result<Self, TooFewDescriptors> {
        let limit = match rlimit::increase_nofile_limit(DESCRIPTORS_ENOUGH as u64) {
            Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            Err(error) => {
                tracing::warn!(%error, "the limit of open files is not known");
                DESCRIPTORS_USUAL
            }
        };
        let shares = Self::of(limit)?;
        if limit < DESCRIPTORS_ENOUGH {
            let Shares { tcp, http, metrics } = shares;
            tracing::info!(
                open_files = limit,
                tcp,
                http,
                metrics,
                "few files may be open: fewer connections are accepted"
            );
        }
        Ok(shares)
    }

    fn of(limit: usize) -> Result<Self, TooFewDescriptors> {
        if limit < DESCRIPTORS_MIN {
            return Err(TooFewDescriptors { limit });
        }
        let connections = limit - DESCRIPTORS_RESERVED;
        let metrics = METRICS_CONNECTIONS_MAX.min(connections / 8);
        let each = (connections - metrics) / 3;
        Ok(Shares { tcp: TCP_CONNECTIONS_MAX.min(each), http: HTTP_CONNECTIONS_MAX.min(each), metrics })
    }

    /// Returns `limits` with at most these numbers of connections.
    pub(super) fn within(self, limits: Limits) -> Limits {
        Limits {
            tcp_connections_max: limits.tcp_connections_max.min(self.tcp),
            http_connections_max: limits.http_connections_max.min(self.http),
            ..limits
        }
    }
}

/// The number of descriptors that Linux usually allows.
const DESCRIPTORS_USUAL: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_together_leave_what_is_reserved() {
        for limit in [DESCRIPTORS_MIN, 100, 256, DESCRIPTORS_USUAL, 4_096, DESCRIPTORS_ENOUGH - 1] {
            let Shares { tcp, http, metrics } = Shares::of(limit).unwrap();
            assert!(tcp > 0 && http > 0 && metrics > 0, "{limit}");
            let reserved = limit - metrics - tcp - 2 * http;
            assert!((DESCRIPTORS_RESERVED..DESCRIPTORS_RESERVED + 3).contains(&reserved), "{limit}: {reserved}");
        }
    }

    #[test]
    fn a_process_that_may_open_enough_has_the_usual_limits() {
        for limit in [DESCRIPTORS_ENOUGH, 1_000_000] {
            let shares = Shares::of(limit).unwrap();
            assert_eq!(
                (shares.within(Limits::default()), shares.metrics),
                (Limits::default(), METRICS_CONNECTIONS_MAX)
            );
        }
    }

    #[test]
    fn too_few_descriptors_are_an_error_with_the_remedy() {
        let error = Shares::of(DESCRIPTORS_MIN - 1).unwrap_err().to_string();
        assert!(error.contains("may open 63 files") && error.contains("ulimit -n"), "{error}");
    }
}
