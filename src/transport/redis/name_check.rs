//! Checks now and then where the broker's name leads.

use std::rc::Rc;
use std::time::Duration;

use super::connection::Broker;
use super::echo::Echoes;
use super::publisher::publish_on_new_connection;
use crate::observer::Env;
use crate::replication::backoff::jittered;
use crate::transport::RedisConfig;

/// Interval at which a number is published on a new connection to the broker's name, give or take the jitter.
pub const NAME_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Publishes a number on a new connection to the broker's name now and then, until the instance stops.
pub async fn keep_checking_name(config: RedisConfig, echoes: Rc<Echoes>, env: Env) {
    let broker = Broker::new(&config, &env);
    let echo = &echoes.by_name;
    let mut rng = env.seeds.child("name_check").rng();
    while !env.tasks.is_stopped() {
        // Not in step with other instances.
        tokio::time::sleep(jittered(NAME_CHECK_INTERVAL, &mut rng)).await;
        let number = echo.next();
        // An error shows nothing about the other two connections, which report their own.
        if publish_on_new_connection(&broker, &echo.channel, number.to_string().as_bytes(), &env).await.is_ok() {
            echo.taken(number);
        }
    }
}
