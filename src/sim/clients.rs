//! The clients of a run: what users' devices do, and what they tell the judge.
//!
//! They are outside all hosts, as phones are: an instance that dies takes the request under way with it, and the client
//! asks another one with the token it has. The judge gets the tokens as the client has them, understood by means of the
//! database alone.

use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::plan::ClientPlan;
use super::workload::{device_id, user_id};
use super::world::{Asked, SyncRequest, World};
use crate::env::Chance;
use crate::judge::{self, Answer, Client, Observation};
use crate::protocol::InstanceName;
use crate::store::InstanceMap;
use crate::streams::{AccountDataRow, Row};
use crate::sync::{News, SINCE_WAIT_MAX, SyncResponse, SyncToken};

/// How much longer than an instance may take by right a client waits for its answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client waits before it asks again where it got no answer, at least.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A device under way.
struct Device {
    world: Rc<World>,
    plan: ClientPlan,
    client: Client,
    chance: Chance,
    /// How tokens are to be understood, as far as it was needed.
    instances: InstanceMap,
    since: Option<String>,
    /// The process that it asked last: the user is there as long as it goes on asking, pauses or not.
    session: Option<(InstanceName, u64)>,
}

/// Syncs as `plan` says, until the run is over.
pub async fn run(world: Rc<World>, plan: ClientPlan, chance: Chance) {
    let client = Client { user_id: user_id(plan.user), device_id: device_id(plan.device) };
    tokio::time::sleep(Duration::from_millis(plan.from_ms)).await;
    let mut device =
        Device { world, plan, client, chance, instances: InstanceMap::default(), since: None, session: None };
    let mut host = device.host(0, None);
    for request in 0.. {
        let pause = Duration::from_millis(device.plan.pause_ms);
        let is_answered = device.ask(&host, request).await;
        let mut rng = device.chance.of("move").of(request).rng();
        if !is_answered || rng.random_range(0..1_000) < device.plan.move_per_mille {
            host = device.host(request, Some(&host));
        }
        tokio::time::sleep(if is_answered { pause } else { pause.max(RETRY_AFTER) }).await;
    }
}

impl Device {
    /// One of its hosts, another than `other` if it has several.
    fn host(&self, request: u64, other: Option<&InstanceName>) -> InstanceName {
        let hosts = self.plan.hosts.iter().map(|host| InstanceName::from(host.as_str()));
        let others: Vec<InstanceName> = hosts.filter(|host| Some(host) != other).collect();
        let host = others.choose(&mut self.chance.of("host").of(request).rng());
        host.or(other).expect("a client has a host").clone()
    }

    /// Asks `host` what is new. False if no answer came.
    async fn ask(&mut self, host: &InstanceName, request: u64) -> bool {
        let timeout = Duration::from_millis(self.plan.timeout_ms);
        let (Client { user_id, device_id }, since) = (self.client.clone(), self.since.clone());
        let Some(Asked { boot, answer }) = self.world.sync(host, SyncRequest { user_id, device_id, since, timeout })
        else {
            return false;
        };
        self.converse_with(host, boot);
        let (client, instance) = (self.client.clone(), host.clone());
        let since = self.since.clone().map(|since| self.understand(&since));
        let asked = Observation::SyncAsked { client: client.clone(), instance: instance.clone(), since: since.clone() };
        self.world.recorder().observe(&asked);
        let answer = tokio::time::timeout(timeout + SINCE_WAIT_MAX + PATIENCE, answer).await;
        let Ok(Ok(Ok(SyncResponse { next_batch, news }))) = answer else { return false };
        if self.chance.of("lost").of(request).rng().random_range(0..1_000) < self.plan.lost_per_mille {
            return false;
        }
        let answer = Rc::new(told(self.understand(&next_batch), news));
        self.world.recorder().observe(&Observation::Synced { client, instance, since, answer });
        self.since = Some(next_batch);
        true
    }

    /// Tells the judge with whom the user syncs from now on.
    fn converse_with(&mut self, host: &InstanceName, boot: u64) {
        let session = Some((host.clone(), boot));
        if self.session == session {
            return;
        }
        let Client { user_id, device_id } = self.client.clone();
        let device = judge::Device { user: user_id, device: Some(device_id) };
        self.world.recorder().observe(&Observation::SyncBegan { instance: host.clone(), boot, device: device.clone() });
        if let Some((instance, boot)) = std::mem::replace(&mut self.session, session) {
            self.world.recorder().observe(&Observation::SyncEnded { instance, boot, device });
        }
    }

    /// What a token says.
    fn understand(&mut self, token: &str) -> SyncToken {
        SyncToken::parse(token, &self.instances).unwrap_or_else(|_| {
            self.instances = self.world.instance_map();
            SyncToken::parse(token, &self.instances).expect("whoever gave the token knew all instances it names")
        })
    }
}

/// An answer as the judge wants it.
fn told(next: SyncToken, news: News) -> Answer {
    let News { events, receipts, account_data, to_device, presence, typing } = news;
    let receipts = receipts.into_iter().map(|(token, row)| (token, Row::Receipts(row)));
    let account_data = account_data.into_iter().map(|(token, datum)| {
        let (user_id, room_id, kind) = (datum.user_id, datum.room_id, datum.kind);
        (token, Row::AccountData(AccountDataRow { user_id, room_id, kind }))
    });
    let presence = presence.into_iter().map(|(token, row)| (token, Row::Presence(row)));
    Answer {
        next,
        events: events.into_iter().map(|(token, event)| (token, event.event_id)).collect(),
        to_device: to_device.into_iter().map(|(token, message)| (token, message.message_id)).collect(),
        rows: receipts.chain(account_data).chain(presence).collect(),
        typing,
    }
}
