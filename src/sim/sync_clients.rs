//! The clients of a run: devices that sync, and report their responses to the judge.
//!
//! They are outside all hosts, like phones: a request is lost with the instance that serves it, and the client repeats it on
//! another instance with the token it has. The judge gets the tokens as the client has them, parsed with the database alone.

use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::contents::{device_id, user_id};
use super::plan::ClientPlan;
use super::world::{PendingSync, SyncRequest, World};
use crate::sync::{News, SINCE_WAIT_MAX, SyncResponse};
use squall_env::SeedTree;
use squall_judge::{self as judge, Answer, Client, Observation};
use squall_protocol::rows::{AccountDataRow, Row};
use squall_protocol::{InstanceMap, InstanceName, SyncToken};

/// The time that a client waits for a response beyond the longest time that an instance may take.
pub(super) const RESPONSE_GRACE: Duration = Duration::from_secs(5);
/// The shortest time between a request without a response and the next request.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);

/// A device that syncs.
struct Device {
    world: Rc<World>,
    plan: ClientPlan,
    client: Client,
    seeds: SeedTree,
    /// The numbers of instances in tokens, as far as they were needed.
    instances: InstanceMap,
    since: Option<String>,
    /// The process that it asked last. The user counts as syncing with it during pauses too.
    session: Option<(InstanceName, u64)>,
}

/// Syncs as planned, until the run is over.
pub(super) async fn run(world: Rc<World>, plan: ClientPlan, seeds: SeedTree) {
    let client = Client { user_id: user_id(plan.user), device_id: device_id(plan.device) };
    tokio::time::sleep(Duration::from_millis(plan.from_ms)).await;
    let mut device =
        Device { world, plan, client, seeds, instances: InstanceMap::default(), since: None, session: None };
    let mut host = device.host(0, None);
    for request in 0.. {
        let pause = Duration::from_millis(device.plan.pause_ms);
        let is_answered = device.sync(&host, request).await;
        let mut rng = device.seeds.child("move").child(request).rng();
        if !is_answered || rng.random_range(0..1_000) < device.plan.move_per_mille {
            host = device.host(request, Some(&host));
        }
        tokio::time::sleep(if is_answered { pause } else { pause.max(RETRY_DELAY_MIN) }).await;
    }
}

impl Device {
    /// Draws one of its hosts: another one than `other`, if it has several.
    fn host(&self, request: u64, other: Option<&InstanceName>) -> InstanceName {
        let hosts = self.plan.hosts.iter().map(|host| InstanceName::from(host.as_str()));
        let others: Vec<InstanceName> = hosts.filter(|host| Some(host) != other).collect();
        let host = others.choose(&mut self.seeds.child("host").child(request).rng());
        host.or(other).expect("a client has a host").clone()
    }

    /// Sends a sync request to `host`. Returns false if no response came.
    async fn sync(&mut self, host: &InstanceName, request: u64) -> bool {
        let timeout = Duration::from_millis(self.plan.timeout_ms);
        let Client { user_id, device_id } = self.client.clone();
        let since = self.since.clone();
        let Some(PendingSync { boot, response }) =
            self.world.sync(host, SyncRequest { user_id, device_id, since, timeout })
        else {
            return false;
        };
        self.move_to(host, boot);
        let client = self.client.clone();
        let instance = host.clone();
        let since = self.since.clone().map(|since| self.parse(&since));
        let request_began =
            Observation::SyncAsked { client: client.clone(), instance: instance.clone(), since: since.clone() };
        self.world.recorder().observe(&request_began);
        let response = tokio::time::timeout(timeout + SINCE_WAIT_MAX + RESPONSE_GRACE, response).await;
        let is_lost = self.seeds.child("lost").child(request).rng().random_range(0..1_000) < self.plan.lost_per_mille;
        let response = response.ok().and_then(Result::ok).and_then(Result::ok).filter(|_| !is_lost);
        let Some(SyncResponse { next_batch, news }) = response else {
            self.world.recorder().observe(&Observation::SyncGivenUp { client });
            return false;
        };
        let answer = Rc::new(answer(self.parse(&next_batch), news));
        self.world.recorder().observe(&Observation::Synced { client, instance, since, answer });
        self.since = Some(next_batch);
        true
    }

    /// Reports the process that the user syncs with from now on.
    fn move_to(&mut self, host: &InstanceName, boot: u64) {
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

    /// Parses a token.
    fn parse(&mut self, token: &str) -> SyncToken {
        SyncToken::parse(token, &self.instances).unwrap_or_else(|_| {
            self.instances = self.world.instance_map();
            SyncToken::parse(token, &self.instances).expect("the token was made with the numbers in the database")
        })
    }
}

/// Returns a response in the form of the judge.
fn answer(next: SyncToken, news: News) -> Answer {
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
