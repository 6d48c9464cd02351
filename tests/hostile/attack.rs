//! An instance under attack: the errors that it reports, and checks that it serves other peers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use squall::instance::{Config, Instance, Write};
use squall::observer::InstanceEvent;
use squall::observer::{Env, Observer};
use squall::replication::Consumers;
use squall_env::TaskObserver;
use squall_protocol::rows::events::EventRow;

use crate::deployment::{Deployment, SERVER_NAME};
use crate::peer::Peer;
use crate::requests;

/// Time within which other peers must be served during an attack. It is far below every time-out.
const AT_ONCE: Duration = Duration::from_secs(1);

/// An instance, and the errors that it has reported.
pub(crate) struct Target {
    pub instance: Rc<Instance>,
    errors: Rc<Reports>,
}

#[derive(Default)]
struct Reports(RefCell<Vec<String>>);

impl TaskObserver for Reports {}

impl Observer for Reports {
    fn event(&self, event: InstanceEvent<'_>) {
        let report = match event {
            InstanceEvent::Connection { peer, error } => format!("{peer}: {}", with_causes(error)),
            InstanceEvent::NewerCommand { peer, newer } => format!("{peer}: {newer}"),
            InstanceEvent::CatchUp { error, .. } => format!("catch-up: {}", with_causes(error)),
            other => format!("{other:?}"),
        };
        self.0.borrow_mut().push(report);
    }
}

/// Returns the text of an error and of its causes. Those of hyper have the details in their causes only.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Returns a JSON array that is nested to this depth: `[[[…1…]]]`.
pub(crate) fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

impl Target {
    pub(crate) async fn start(deployment: &Deployment, name: &str) -> Self {
        Self::start_with(deployment, name, Consumers::default()).await
    }

    pub(crate) async fn start_with(deployment: &Deployment, name: &str, consumers: Consumers) -> Self {
        Self::start_as(deployment, deployment.config().clone(), name, consumers).await
    }

    /// Starts an instance with this configuration.
    pub(crate) async fn start_as(deployment: &Deployment, config: Config, name: &str, consumers: Consumers) -> Self {
        let errors = Rc::new(Reports::default());
        let env = Env { observer: errors.clone(), ..deployment.env(name) };
        let (config, database) = (Rc::new(config), deployment.database().clone());
        let instance = Instance::start(name.into(), config, env, database, consumers).await.unwrap();
        Target { instance, errors }
    }

    /// Returns the number of reported errors that contain all of `words`.
    pub(crate) fn reported(&self, words: &[&str]) -> usize {
        let errors = self.errors.0.borrow();
        errors.iter().filter(|error| words.iter().all(|word| error.contains(word))).count()
    }

    /// Clears the reported errors.
    pub(crate) fn clear_reports(&self) {
        self.errors.0.borrow_mut().clear();
    }

    /// Returns all reported errors.
    pub(crate) fn reports(&self) -> Vec<String> {
        self.errors.0.borrow().clone()
    }

    /// Checks that the master serves a new follower and a new HTTP client at once.
    pub(crate) async fn serves_others(&self, deployment: &Deployment) {
        tokio::time::timeout(AT_ONCE, self.serve_others(deployment)).await.expect("others are served at once");
    }

    async fn serve_others(&self, deployment: &Deployment) {
        let mut follower = Follower::join(deployment).await;
        follower.gets_a_row(&self.instance).await;
        let path = "/_synapse/replication/get_repl_stream_updates/events/healthy";
        let query = "instance_name=master&from_token=0&upto_token=1";
        let (status, answer) = requests::get(deployment, "master", &format!("{path}?{query}")).await;
        assert_eq!(status, 200, "{answer}");
    }
}

/// A well-behaved follower of the master.
pub(crate) struct Follower(Peer);

impl Follower {
    pub(crate) async fn join(deployment: &Deployment) -> Self {
        let mut peer = deployment.join("master").await;
        peer.say("NAME healthy").await;
        peer.say("PING 1").await;
        peer.say("REPLICATE").await;
        for _ in 0..crate::deployment::MASTER_POSITIONS.len() {
            peer.hear("POSITION ").await;
        }
        Follower(peer)
    }

    /// Writes an event and checks that its row arrives.
    pub(crate) async fn gets_a_row(&mut self, master: &Instance) {
        self.gets_the_row_of(persist(master).await).await;
    }

    /// Checks that the row with this token arrives.
    pub(crate) async fn gets_the_row_of(&mut self, token: i64) {
        self.0.hear(&format!("RDATA events master {token} ")).await;
    }
}

/// Writes an event and returns its token.
pub(crate) async fn persist(writer: &Instance) -> i64 {
    persist_many(writer, 1).await
}

/// Writes events in one transaction and returns the last token.
pub(crate) async fn persist_many(writer: &Instance, count: usize) -> i64 {
    let known = writer.handler().position("events", writer.name()).unwrap();
    let event = |number| EventRow::message(format!("$after{known}_{number}"), format!("!room:{SERVER_NAME}"));
    let writes = (0..count).map(|number| Write { event: Some(event(number)), state: Vec::new() });
    writer.events().unwrap().persist(writes.collect()).await.unwrap().0
}
