//! The ports that an instance opens, and the connections that it makes.

use std::rc::Rc;

use super::endpoints::Endpoints;
use super::{Config, Instance, StartError};
use crate::observer::Env;
use crate::tasks;
use crate::transport::http::{self, Router};
#[cfg(feature = "redis")]
use crate::transport::redis;
use crate::transport::tcp;
use squall_env::Listener;
use squall_protocol::InstanceName;

/// The open ports of an instance that others connect to.
pub(super) struct Ports {
    /// The port of the line protocol. None with Redis, where rows go over the broker only.
    replication: Option<Box<dyn Listener>>,
    /// The port of HTTP requests.
    requests: Box<dyn Listener>,
}

impl Ports {
    /// Opens the ports of the instance called `name`. Returns none if no other instance connects to it.
    pub(super) async fn open(name: &InstanceName, config: &Config, env: &Env) -> Result<Option<Ports>, StartError> {
        if !config.listeners().contains(name) {
            return Ok(None);
        }
        let endpoint = &config.instance_map[name];
        let replication = match config.redis {
            Some(_) => None,
            None => Some(listen(env, endpoint.replication_port).await?),
        };
        let requests = listen(env, endpoint.http_port).await?;
        Ok(Some(Ports { replication, requests }))
    }
}

async fn listen(env: &Env, port: u16) -> Result<Box<dyn Listener>, StartError> {
    env.network.listen(port).await.map_err(|error| StartError::Listen { port, error })
}

impl Instance {
    /// Serves the connections that others make to this instance.
    pub(super) fn serve(self: &Rc<Self>, ports: Ports) {
        if let Some(replication) = ports.replication {
            let accepting = tcp::accept_connections(replication, Rc::clone(&self.handler), self.env.clone());
            self.env.tasks.spawn(tasks::ACCEPT_CONNECTIONS, accepting);
        }
        let endpoints = Rc::new(Endpoints(Rc::clone(self)));
        let secret = self.config.secret.clone();
        let limits = self.config.limits;
        let router = Router::new(endpoints, secret, Rc::clone(&self.positions), limits, self.env.clone());
        let connections_max = limits.http_connections_max;
        let serving = http::serve_requests(ports.requests, connections_max, router, self.env.clone());
        self.env.tasks.spawn(tasks::SERVE_REQUESTS, serving);
    }

    /// Connects to the broker or, without one, to every other instance that listens.
    pub(super) fn connect(&self) {
        let env = &self.env;
        #[cfg(feature = "redis")]
        if let Some(broker) = &self.config.redis {
            let echoes = Rc::new(redis::Echoes::new(&self.config.server_name, &env.seeds));
            let handler = Rc::clone(&self.handler);
            let publishing = redis::keep_publishing(broker.clone(), Rc::clone(&echoes), handler, env.clone());
            env.tasks.spawn(tasks::KEEP_PUBLISHING, publishing);
            let subscribing =
                redis::stay_subscribed(broker.clone(), Rc::clone(&echoes), Rc::clone(&self.handler), env.clone());
            env.tasks.spawn(tasks::STAY_SUBSCRIBED, subscribing);
            let checking_name = redis::keep_checking_name(broker.clone(), echoes, env.clone());
            env.tasks.spawn(tasks::KEEP_CHECKING_NAME, checking_name);
            return;
        }
        for (target, address) in self.config.replication_addresses() {
            if target != self.name {
                let connected = tcp::stay_connected(target, address, Rc::clone(&self.handler), env.clone());
                env.tasks.spawn(tasks::STAY_CONNECTED, connected);
            }
        }
    }
}
