//! The handlers of the HTTP endpoints in the table of [`Endpoint`].
//!
//! Each handler checks that this instance is the writer, and writes through the instance's own writers.

mod account_data;
mod fed_send_edu;
mod get_repl_stream_updates;
mod presence;
mod send_events;

use std::rc::Rc;

use http::StatusCode;
use serde_json::{Map, Value};

use super::config::writer_for;
use super::{IdempotencyKey, Instance, PersistError};
use crate::store::AllocateError;
use crate::transport::http::{Endpoint, EndpointRequest, HttpRefusal, Reply, RequestHandler};
use squall_env::LocalBoxFuture;
use squall_protocol::InstanceName;

/// The endpoints of one instance.
pub(super) struct Endpoints(pub Rc<Instance>);

impl RequestHandler for Endpoints {
    fn handle(
        &self,
        endpoint: Endpoint,
        request: EndpointRequest,
    ) -> LocalBoxFuture<'static, Result<Reply, HttpRefusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move {
            match endpoint {
                Endpoint::GetUpdates => get_repl_stream_updates::handle(&instance, &request).await,
                Endpoint::SendEvents => send_events::handle(&instance, &request).await,
                Endpoint::AddUserAccountData => account_data::add_for_user(&instance, &request).await,
                Endpoint::AddRoomAccountData => account_data::add_for_room(&instance, &request).await,
                Endpoint::SendEdu => fed_send_edu::handle(&instance, &request).await,
                Endpoint::SetPresence => presence::set_state(&instance, &request).await,
                Endpoint::BumpPresence => presence::bump_active(&instance, &request).await,
            }
        })
    }
}

/// Refuses a request to write `what` unless this instance is its writer. The refusal names the writer.
fn check_writer(instance: &Instance, what: &str, writer: &InstanceName) -> Result<(), HttpRefusal> {
    if writer == instance.name() {
        return Ok(());
    }
    Err(HttpRefusal::bad_request(format!("{what} is written by {writer}: ask there")))
}

/// Refuses a request to write to `room_id` unless this instance is one of `writers`, the writers of `stream`. The refusal
/// names the writer of the room.
///
/// Any of the writers may write to any room: while a writer is added, the sender may have another configuration, by which
/// this instance is the writer of the room.
fn check_writers(
    instance: &Instance,
    stream: &str,
    room_id: &str,
    writers: &[InstanceName],
) -> Result<(), HttpRefusal> {
    if writers.contains(instance.name()) {
        return Ok(());
    }
    check_writer(instance, &format!("{stream} of the room {room_id}"), writer_for(writers, room_id))
}

/// Returns the key by which the database recognises a repeated request.
fn idempotency_key(instance: &Instance, request: &EndpointRequest) -> Option<IdempotencyKey> {
    let now_ms = instance.env().clock.now_ms() as i64;
    request.id.clone().map(|request| IdempotencyKey { request, now_ms })
}

/// It may be unknown if anything was written. A retry with the same transaction id is safe.
impl From<PersistError> for HttpRefusal {
    fn from(error: PersistError) -> Self {
        match error {
            PersistError::Allocate(AllocateError::NotAWriter { .. } | AllocateError::NotShared(_)) => {
                HttpRefusal::bad_request(error)
            }
            // A retry fails in the same way.
            PersistError::Allocate(AllocateError::ForeignDatabase { .. }) => {
                HttpRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", error)
            }
            PersistError::Allocate(_) | PersistError::Database(_) | PersistError::Ended => {
                HttpRefusal::try_again(error)
            }
        }
    }
}

/// Creates a JSON object of these entries.
fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
