//! Sentinels: processes that know which Redis server is the master at present.
//!
//! A Redis deployment with sentinels has no fixed broker. Each connection asks them for the master and goes there. After a
//! failover the connections to the old master end with it. If the old one lives on, it becomes a replica, and sentinels end
//! all of its connections then. Before that, the [name check](super::name_check) may find it: a message on a new
//! connection, to the new master, does not reach the subscription to the old one.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use thiserror::Error;

use super::read_limiter::{Limits, ReadLimiter};
use crate::observer::Env;
use crate::tasks;
use crate::transport::SentinelConfig;
use crate::transport::tls_mismatch::Plain;
use squall_env::Address;

/// Time in which a sentinel answers. After it the next one is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum length of a sentinel's reply, in bytes. A reply has an address.
const REPLY_BYTES_MAX: usize = 4 * 1024;

/// No sentinel has named the master.
#[derive(Debug, Error)]
#[error("no sentinel names the master {master} ({reasons}): check redis.sentinel")]
pub struct NoMaster {
    master: String,
    reasons: String,
}

/// Returns the address of the master, from the first sentinel that knows it.
pub(super) async fn address_of_master(config: &SentinelConfig, env: &Env) -> Result<Address, NoMaster> {
    let mut reasons = Vec::new();
    for sentinel in &config.addresses {
        let reason = match tokio::time::timeout(ANSWER_TIMEOUT, ask(sentinel, config, env)).await {
            Ok(Ok(Some(address))) => return Ok(address),
            Ok(Ok(None)) => "does not know it".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        reasons.push(format!("{sentinel}: {reason}"));
    }
    Err(NoMaster { master: config.master.clone(), reasons: reasons.join("; ") })
}

/// Returns the address of the master as one sentinel knows it.
async fn ask(sentinel: &Address, config: &SentinelConfig, env: &Env) -> Result<Option<Address>, RedisError> {
    let stream = env.network.connect(sentinel).await?;
    let (stream, _limiter) =
        ReadLimiter::on(Plain::connected(stream), Limits { waiting: REPLY_BYTES_MAX, reply: REPLY_BYTES_MAX });
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let info = match &config.password {
        Some(password) => info.set_password(password),
        None => info,
    };
    let timeouts = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let (mut client, driver) = MultiplexedConnection::new_with_config(&info, stream, timeouts).await?;
    // It ends with the client.
    env.tasks.spawn(tasks::REDIS_CONNECTION, driver);
    let mut query = redis::cmd("SENTINEL");
    query.arg("get-master-addr-by-name").arg(&config.master);
    let found: Option<(String, u16)> = query.query_async(&mut client).await?;
    Ok(found.map(|(host, port)| Address::new(host, port)))
}
