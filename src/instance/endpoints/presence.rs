//! Sets a user's presence, and records that a user was active.
//!
//! Presence is kept in memory first, so the database does not show if a request has taken effect before. The request
//! cache recognises a repeated request within one run of the writer; after a restart the same state is set again.

use http::StatusCode;
use serde_json::Map;

use super::check_writer;
use crate::instance::Instance;
use crate::presence::{PresenceError, PresenceState, SetState};
use crate::transport::http::endpoints::presence::{BumpBody, SetBody};
use crate::transport::http::{EndpointRequest, HttpRefusal, Reply};
use squall_protocol::rows::presence;

/// Sets a user's presence.
pub(super) async fn set_state(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    check_writer(instance, presence::NAME, &instance.config().stream_writers.presence)?;
    let SetBody { device_id, force_notify, is_sync, state } = request.parse()?;
    let Some(named) = PresenceState::named(&state.presence) else {
        let error = format!("{} is no presence", state.presence);
        return Err(HttpRefusal::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error));
    };
    let set = SetState { device_id, state: named, status_msg: state.status_msg, is_sync, force_notify };
    let token = instance.presence().set_state(&request.arguments[0], set).await?;
    Ok(Reply::wrote(Map::new(), presence::NAME, token))
}

/// Records that a user was active.
pub(super) async fn bump_active(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    check_writer(instance, presence::NAME, &instance.config().stream_writers.presence)?;
    let BumpBody { device_id } = request.parse()?;
    let token = instance.presence().bump_active(&request.arguments[0], device_id).await?;
    Ok(Reply::wrote(Map::new(), presence::NAME, token))
}

impl From<PresenceError> for HttpRefusal {
    fn from(error: PresenceError) -> Self {
        match error {
            PresenceError::NotTheWriter => HttpRefusal::bad_request(error),
            PresenceError::Ended => HttpRefusal::try_again(error),
        }
    }
}
