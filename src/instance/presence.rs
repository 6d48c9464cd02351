//! The presence of users, as part of an instance.

use std::rc::Rc;

use super::Config;
use super::stream_writer::{StreamWriter, Written};
use crate::env::{Env, LocalBoxFuture};
use crate::presence::{PersistPresence, PresenceConnections, PresenceHandler, UserPresence, UserSyncs};
use crate::protocol::{InstanceName, Token};
use crate::replication::UserSyncing;
use crate::store::{IdGenerator, presence};
use crate::streams::{PresenceRow, Row, UpdateError};

/// Everybody's presence, and who is syncing here.
pub(super) struct Presence {
    pub handler: Rc<PresenceHandler>,
    pub syncs: Rc<UserSyncs>,
}

impl Presence {
    /// Begins with what the database held, `states`. `writer` writes the stream, if this instance does.
    pub fn start(
        states: Vec<(Token, PresenceRow)>,
        writer: Option<Rc<StreamWriter>>,
        ids: &Rc<IdGenerator>,
        config: &Config,
        env: &Env,
    ) -> Presence {
        let states = states.into_iter().map(|(token, row)| (token, row.into())).collect();
        let expiry = config.presence.process_expiry();
        let handler = match writer {
            Some(writer) => {
                let source = Rc::new(Persist { writer, ids: Rc::clone(ids) });
                PresenceHandler::on_writer(states, source, expiry, env.clone())
            }
            None => PresenceHandler::on_follower(states, env.clone()),
        };
        let here = handler.is_writer().then(|| Rc::clone(&handler));
        let syncs = UserSyncs::new(here, &config.presence, env.clone());
        Presence { handler, syncs }
    }

    /// What its connections have to know of it.
    pub fn connections(&self, writer: InstanceName) -> Rc<dyn UserSyncing> {
        Rc::new(PresenceConnections::new(writer, Rc::clone(&self.syncs), Rc::clone(&self.handler)))
    }
}

/// Writes rows of `presence`.
struct Persist {
    writer: Rc<StreamWriter>,
    ids: Rc<IdGenerator>,
}

impl PersistPresence for Persist {
    fn persist(&self, states: Vec<UserPresence>) -> LocalBoxFuture<'static, Result<Token, UpdateError>> {
        let (writer, name, count) = (Rc::clone(&self.writer), self.writer.instance().clone(), states.len());
        let states: Vec<PresenceRow> = states.into_iter().map(PresenceRow::from).collect();
        let set = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            let mut rows = Vec::with_capacity(states.len());
            for (token, state) in tokens.iter().zip(&states) {
                presence::set(tx, &name, *token, state)?;
                rows.push((*token, Row::Presence(state.clone())));
            }
            Ok(Written { rows, reply: *tokens.last().expect("there is something to write") })
        };
        Box::pin(async move { Ok(writer.persist("set_presence", count, set).await?) })
    }

    fn position(&self) -> Token {
        self.ids.current_token_for_writer(self.ids.instance())
    }
}
