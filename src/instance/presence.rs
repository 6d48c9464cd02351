//! The parts of an instance that concern presence.

use std::rc::Rc;

use super::Config;
use super::stream_writer::{StreamWriter, Written};
use crate::observer::Env;
use crate::presence::{PersistPresence, PresenceConnections, PresenceHandler, UserPresence, UserSyncs};
use crate::replication::UserSyncing;
use crate::store::{IdGenerator, presence};
use crate::streams::UpdateError;
use squall_env::LocalBoxFuture;
use squall_protocol::rows::{PresenceRow, Row};
use squall_protocol::{InstanceName, Token};

/// The presence of all users, and the users who are syncing on this instance.
pub(super) struct Presence {
    pub(super) handler: Rc<PresenceHandler>,
    pub(super) syncs: Rc<UserSyncs>,
}

impl Presence {
    /// Makes both parts from the states in the database, and spawns their tasks. `writer` is the stream's writer, if this
    /// instance writes the stream.
    pub(super) fn start(
        states: Vec<(Token, PresenceRow)>,
        writer: Option<Rc<StreamWriter>>,
        ids: &Rc<IdGenerator>,
        config: &Config,
        env: &Env,
    ) -> Presence {
        let states = states.into_iter().map(|(token, row)| (token, row.into())).collect();
        let handler = match writer {
            Some(writer) => {
                let source = Rc::new(Persist { writer, ids: Rc::clone(ids) });
                PresenceHandler::on_writer(states, source, &config.presence, env.clone())
            }
            None => PresenceHandler::on_follower(states, env.clone()),
        };
        let local = handler.is_writer().then(|| Rc::clone(&handler));
        let syncs = UserSyncs::new(local, &config.presence, env.clone());
        Presence { handler, syncs }
    }

    /// Returns the receiver of connections and of commands about syncing users. `writer` is the presence writer.
    pub(super) fn connections(&self, writer: InstanceName) -> Rc<dyn UserSyncing> {
        Rc::new(PresenceConnections::new(writer, Rc::clone(&self.syncs), Rc::clone(&self.handler)))
    }
}

/// Writes rows of the `presence` stream.
struct Persist {
    writer: Rc<StreamWriter>,
    ids: Rc<IdGenerator>,
}

impl PersistPresence for Persist {
    fn persist(&self, states: Vec<UserPresence>) -> LocalBoxFuture<'static, Result<Token, UpdateError>> {
        let writer = Rc::clone(&self.writer);
        let name = writer.instance().clone();
        let count = states.len();
        let states: Vec<PresenceRow> = states.into_iter().map(PresenceRow::from).collect();
        let set = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            let mut rows = Vec::with_capacity(states.len());
            for (token, state) in tokens.iter().zip(&states) {
                presence::set(tx, &name, *token, state)?;
                rows.push((*token, Row::Presence(state.clone())));
            }
            Ok(Written::new(rows, *tokens.last().expect("the presence handler persists at least one state")))
        };
        Box::pin(async move { Ok(writer.persist("set_presence", count, set).await?) })
    }

    fn position(&self) -> Token {
        self.ids.current_token_for_writer(self.ids.instance())
    }
}
