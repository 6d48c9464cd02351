//! What instances ask of each other: a file for each endpoint, named after its path.

pub mod account_data;
pub mod fed_send_edu;
pub mod get_repl_stream_updates;
pub mod presence;
pub mod send_events;

use std::rc::Rc;

use serde_json::{Map, Value};

use super::{Endpoint, EndpointRequest, Refusal};
use crate::instance::{Instance, Once, PersistError};
use crate::protocol::InstanceName;
use crate::store::AllocateError;

/// Everything that `instance` can be asked for.
pub fn all(instance: &Rc<Instance>) -> Vec<Rc<dyn Endpoint>> {
    vec![
        Rc::new(get_repl_stream_updates::GetUpdates(Rc::clone(instance))),
        Rc::new(send_events::SendEvents(Rc::clone(instance))),
        Rc::new(account_data::AddUserAccountData(Rc::clone(instance))),
        Rc::new(account_data::AddRoomAccountData(Rc::clone(instance))),
        Rc::new(fed_send_edu::SendEdu(Rc::clone(instance))),
        Rc::new(presence::SetPresence(Rc::clone(instance))),
        Rc::new(presence::BumpActive(Rc::clone(instance))),
    ]
}

/// Refuses, with the writer's name, what another instance has to write.
fn check_writer(instance: &Instance, what: &str, writer: &InstanceName) -> Result<(), Refusal> {
    if writer == instance.name() {
        return Ok(());
    }
    Err(Refusal::bad_request(format!("{what} is written by {writer}: ask there")))
}

/// What makes the effect of `request` a single one.
fn once(instance: &Instance, request: &EndpointRequest) -> Option<Once> {
    let now_ms = instance.env().clock.now_ms() as i64;
    request.id.clone().map(|request| Once { request, now_ms })
}

/// Whether anything was written may not be known; whoever asks again with the same transaction id does no harm.
impl From<PersistError> for Refusal {
    fn from(error: PersistError) -> Self {
        match error {
            PersistError::Allocate(AllocateError::NotAWriter { .. }) => Refusal::bad_request(error),
            PersistError::Allocate(_) | PersistError::Database(_) | PersistError::Ended => Refusal::try_again(error),
        }
    }
}

/// A JSON object of these entries.
fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
