//! `POST presence_set_state/<user>` and `POST bump_presence_active_time/<user>`: a user changes their presence, or does
//! something. Both answer `{}`.
//!
//! What they say is kept in memory first, so nothing in the database tells whether a request took effect before. Within
//! one run of the writer the request cache does; a run that has just begun sets the same state again.

use std::rc::Rc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::check_writer;
use crate::env::LocalBoxFuture;
use crate::instance::Instance;
use crate::presence::{PresenceError, PresenceState, SetState};
use crate::streams::presence;
use crate::transport::http::{Endpoint, EndpointRequest, Refusal, Reply};

/// The name of the endpoint that sets a state.
pub const SET_STATE: &str = "presence_set_state";
/// The name of the endpoint that says that a user is active.
pub const BUMP_ACTIVE: &str = "bump_presence_active_time";

/// What is asked of [`SET_STATE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetBody {
    /// The device it comes from. All devices of a user share one presence here.
    pub device_id: Option<String>,
    /// Whether to write a row even if nothing changes.
    #[serde(default)]
    pub force_notify: bool,
    /// Whether it comes with a sync, which leaves the message as it is.
    #[serde(default)]
    pub is_sync: bool,
    /// What the presence shall be.
    pub state: State,
}

/// What a presence shall be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// `online`, `unavailable`, `offline` or `busy`.
    pub presence: String,
    /// What the user says about themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<String>,
}

/// What is asked of [`BUMP_ACTIVE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BumpBody {
    /// The device it comes from.
    pub device_id: Option<String>,
}

/// The endpoint that sets a state.
pub struct SetPresence(pub Rc<Instance>);

/// The endpoint that says that a user is active.
pub struct BumpActive(pub Rc<Instance>);

impl Endpoint for SetPresence {
    fn name(&self) -> &'static str {
        SET_STATE
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["user"]
    }

    fn has_transaction_id(&self) -> bool {
        false
    }

    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move {
            check_writer(&instance, presence::NAME, &instance.config().stream_writers.presence)?;
            let SetBody { force_notify, is_sync, state, .. } = request.parse()?;
            let Some(named) = PresenceState::named(&state.presence) else {
                let error = format!("{} is no presence", state.presence);
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error));
            };
            let set = SetState { state: named, status_msg: state.status_msg, is_sync, force_notify };
            let token = instance.presence().set_state(&request.arguments[0], set).await?;
            Ok(Reply::wrote(Map::new(), presence::NAME, token))
        })
    }
}

impl Endpoint for BumpActive {
    fn name(&self) -> &'static str {
        BUMP_ACTIVE
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["user"]
    }

    fn has_transaction_id(&self) -> bool {
        false
    }

    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move {
            check_writer(&instance, presence::NAME, &instance.config().stream_writers.presence)?;
            let BumpBody { .. } = request.parse()?;
            let token = instance.presence().bump_active(&request.arguments[0]).await?;
            Ok(Reply::wrote(Map::new(), presence::NAME, token))
        })
    }
}

impl From<PresenceError> for Refusal {
    fn from(error: PresenceError) -> Self {
        match error {
            PresenceError::NotTheWriter => Refusal::bad_request(error),
            PresenceError::Ended => Refusal::try_again(error),
        }
    }
}
