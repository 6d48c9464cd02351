//! What is asked of an instance while it is attacked: what it tells, and whether it serves everybody else.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use squall::env::observer::Trouble;
use squall::env::{Env, Observer};
use squall::instance::{Config, Instance, Write};
use squall::replication::Consumers;
use squall::store::NewEvent;

use crate::deployment::{Deployment, SERVER_NAME};
use crate::peer::Peer;
use crate::requests;

/// Far less than any time-out: whoever is served late because others attack is not served.
const AT_ONCE: Duration = Duration::from_secs(1);

/// An instance, and what it told of its troubles.
pub struct Target {
    pub instance: Rc<Instance>,
    troubles: Rc<Troubles>,
}

#[derive(Default)]
struct Troubles(RefCell<Vec<String>>);

impl Observer for Troubles {
    fn trouble(&self, what: Trouble<'_>) {
        let told = match what {
            Trouble::Connection { peer, error } => format!("{peer}: {}", with_causes(error)),
            Trouble::CatchUp { error, .. } => format!("catch-up: {}", with_causes(error)),
            other => format!("{other:?}"),
        };
        self.0.borrow_mut().push(told);
    }
}

/// An error and what caused it: hyper's say what went wrong only in their causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

impl Target {
    pub async fn start(deployment: &Deployment, name: &str) -> Self {
        Self::start_with(deployment, name, Consumers::default()).await
    }

    pub async fn start_with(deployment: &Deployment, name: &str, consumers: Consumers) -> Self {
        Self::start_as(deployment, deployment.config().clone(), name, consumers).await
    }

    /// Starts one that is configured like this.
    pub async fn start_as(deployment: &Deployment, config: Config, name: &str, consumers: Consumers) -> Self {
        let troubles = Rc::new(Troubles::default());
        let env = Env { observer: troubles.clone(), ..deployment.env(name) };
        let (config, database) = (Rc::new(config), deployment.database().clone());
        let instance = Instance::start(name.into(), config, env, database, consumers).await.unwrap();
        Target { instance, troubles }
    }

    /// How often it told of trouble in which all of `words` are.
    pub fn told(&self, words: &[&str]) -> usize {
        let troubles = self.troubles.0.borrow();
        troubles.iter().filter(|told| words.iter().all(|word| told.contains(word))).count()
    }

    /// From now on only what comes counts as told.
    pub fn forget_troubles(&self) {
        self.troubles.0.borrow_mut().clear();
    }

    /// Everything it told, for messages.
    pub fn everything_told(&self) -> Vec<String> {
        self.troubles.0.borrow().clone()
    }

    /// Checks that the master serves whoever comes now: rows by lines, and answers over HTTP.
    pub async fn serves_others(&self, deployment: &Deployment) {
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

/// A follower of the master that does nothing wrong.
pub struct Follower(Peer);

impl Follower {
    pub async fn join(deployment: &Deployment) -> Self {
        let mut peer = deployment.join("master").await;
        peer.say("NAME healthy").await;
        peer.say("PING 1").await;
        peer.say("REPLICATE").await;
        for _ in 0..crate::deployment::MASTER_POSITIONS.len() {
            peer.hear("POSITION ").await;
        }
        Follower(peer)
    }

    /// Checks that a row arrives that is written now.
    pub async fn gets_a_row(&mut self, master: &Instance) {
        self.gets_the_row_of(persist(master).await).await;
    }

    /// Checks that the row of this token arrives.
    pub async fn gets_the_row_of(&mut self, token: i64) {
        self.0.hear(&format!("RDATA events master {token} ")).await;
    }
}

/// Writes an event, and gives its token.
pub async fn persist(writer: &Instance) -> i64 {
    persist_many(writer, 1).await
}

/// Writes so many events at once, and gives the last token.
pub async fn persist_many(writer: &Instance, count: usize) -> i64 {
    let known = writer.handler().position("events", writer.name()).unwrap();
    let event = |number| NewEvent::message(format!("$after{known}_{number}"), format!("!room:{SERVER_NAME}"));
    let writes = (0..count).map(|number| Write { event: Some(event(number)), state: Vec::new() });
    writer.events().unwrap().persist(writes.collect()).await.unwrap().0
}
