//! Lost replies: every HTTP connection to one server is reset soon after it was opened.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::deployment::HTTP_PORT;
use squall_netsim::Unsupported;

/// Interval between checks for a new request: requests are soon over.
const CHECK_INTERVAL: Duration = Duration::from_millis(3);

/// Resets of every HTTP connection to a server, some time after each was opened: a proxy that times out. Often the
/// request has been carried out and its reply is on its way. The client cannot know, and repeats the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostReply {
    /// The host that serves the requests.
    pub server: String,
    /// The lifetime of each connection, in milliseconds.
    pub after_ms: u64,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for LostReply {
    const PER_PLAN: RangeInclusive<u32> = 3..=22;
    // Not `after_ms`: a connection that lives for less is a worse fault.
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        Some(LostReply {
            server: draw.server(),
            after_ms: draw.one_of(&[2, 5, 10, 20, 50, 100, 300]),
            for_ms: draw.rng.random_range(1_000..=6_000),
        })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.server]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let LostReply { server, after_ms, .. } = self;
        let engine = cluster.engine();
        let mut cuts = 0;
        while Instant::now() < span.until {
            let clients = cluster.instances().iter().filter(|client| client.as_str() != server);
            let requests: Vec<_> =
                clients.flat_map(|client| engine.connections_to(client.as_str(), &server, HTTP_PORT)).collect();
            if !requests.is_empty() {
                sleep(Duration::from_millis(after_ms)).await;
                cuts += requests.iter().filter(|request| engine.cut(request)).count();
            }
            sleep(CHECK_INTERVAL).await;
        }
        Ok(cuts > 0)
    }

    fn describe(&self) -> String {
        format!("lost replies: HTTP connections to {} live {} ms", self.server, self.after_ms)
    }
}
