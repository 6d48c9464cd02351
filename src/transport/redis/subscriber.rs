//! The connection on which everything is heard.

use std::convert::Infallible;
use std::rc::Rc;

use tokio::time::Instant;

use super::connection::{
    Broker, BrokerError, BrokerReader, BrokerWriter, PING_INTERVAL, REPLY_TIMEOUT, again_and_again, answer, settle,
};
use super::resp::Reply;
use super::user_ip_channel;
use crate::env::Env;
use crate::instance::config::RedisConfig;
use crate::protocol::{Command, Header, InstanceName, MASTER};
use crate::replication::{CommandHandler, Link};

/// Stays subscribed until the instance stops.
pub async fn stay_subscribed(config: RedisConfig, handler: Rc<CommandHandler>, env: Env) {
    let broker = Broker::new(&config, &env);
    again_and_again("subscribe", &broker, async || match subscribe(&broker, &handler).await {
        Ok((reader, writer)) => {
            let link = handler.subscribed();
            let Err(error) = listen(&link, reader, writer, &handler, &broker, &env).await;
            link.closed();
            handler.lost(&link);
            (Some(link), error)
        }
        Err(error) => (None, error),
    })
    .await;
}

/// Connects and subscribes. Ends when the broker has acknowledged that, and not before: what is asked for earlier may be
/// answered before the subscription is there.
async fn subscribe(broker: &Broker, handler: &CommandHandler) -> Result<(BrokerReader, BrokerWriter), BrokerError> {
    let (mut reader, mut writer) = broker.open().await?;
    let user_ip = (handler.instance().as_str() == MASTER).then(|| user_ip_channel(handler.server_name()));
    let channels: Vec<&str> = [handler.server_name()].into_iter().chain(user_ip.as_deref()).collect();
    let words: Vec<&[u8]> = ["SUBSCRIBE"].iter().chain(&channels).map(|word| word.as_bytes()).collect();
    let asked = async {
        writer.send([&words[..]]).await?;
        // Each is acknowledged by itself, and nothing is said on any before all are.
        for _ in &channels {
            reader.expect("SUBSCRIBE", Reply::is_subscribed).await?;
        }
        Ok(())
    };
    answer("SUBSCRIBE", asked).await?;
    Ok((reader, writer))
}

/// Hands what comes to the handler, until the connection is over, and pings the broker until it does not answer.
async fn listen(
    link: &Rc<Link>,
    mut reader: BrokerReader,
    mut writer: BrokerWriter,
    handler: &CommandHandler,
    broker: &Broker,
    env: &Env,
) -> Result<Infallible, BrokerError> {
    let mut ping_at = Instant::now() + PING_INTERVAL;
    let mut pinged_at = None;
    loop {
        while let Some(reply) = reader.next_read()? {
            if let Some(payload) = reply.message() {
                take(payload, link, handler, broker);
            } else if pinged_at.is_some() && reply.is_pong() {
                ping_at = Instant::now() + PING_INTERVAL;
                pinged_at = None;
                settle(link, env);
            } else {
                return Err(BrokerError::unexpected("a subscription", &reply));
            }
            // Whoever deals with what came has to get a turn, however much there is.
            tokio::task::consume_budget().await;
        }
        let wake_at = pinged_at.map_or(ping_at, |at| at + REPLY_TIMEOUT);
        tokio::select! {
            biased;
            () = link.over() => return Err(BrokerError::ClosedHere),
            () = tokio::time::sleep_until(wake_at) => {
                if pinged_at.is_some() {
                    return Err(BrokerError::Silent("PING"));
                }
                answer("PING", writer.send([&[&b"PING"[..]][..]])).await?;
                pinged_at = Some(Instant::now());
            }
            read = reader.read() => read?,
        }
    }
}

/// Hands one command to the handler. One who says what nobody understands must not keep everybody else from being heard,
/// but it may have been a row.
fn take(payload: &[u8], link: &Rc<Link>, handler: &CommandHandler, broker: &Broker) {
    if is_own_row(payload, handler.instance()) {
        return; // a writer hears all it says, and need not read it
    }
    let error = match understood(payload) {
        Ok(command) => return handler.received(link, command),
        Err(error) => error,
    };
    match Header::peek(&String::from_utf8_lossy(payload)) {
        Ok(Header::Rdata(header)) => handler.unreadable(link, header, &error),
        _ => broker.report(&error),
    }
}

fn is_own_row(payload: &[u8], instance: &InstanceName) -> bool {
    let mut words = payload.splitn(4, |byte| *byte == b' ');
    words.next() == Some(b"RDATA") && words.nth(1) == Some(instance.as_str().as_bytes())
}

fn understood(payload: &[u8]) -> Result<Command, BrokerError> {
    let text = std::str::from_utf8(payload).map_err(|_| BrokerError::NotUtf8)?;
    Ok(Command::parse(text)?)
}
