//! `POST add_user_account_data/<user>/<type>` and `POST add_room_account_data/<user>/<room>/<type>`: a user keeps
//! `{"content":{..}}` on the server, about their account or about a room. Both answer `{"max_stream_id":..}`.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{check_writer, object, once};
use crate::env::LocalBoxFuture;
use crate::instance::Instance;
use crate::protocol::Token;
use crate::store::account_data::Datum;
use crate::streams::account_data;
use crate::transport::http::{Endpoint, EndpointRequest, Refusal, Reply};

/// The name of the endpoint for accounts.
pub const OF_USER: &str = "add_user_account_data";
/// The name of the endpoint for rooms.
pub const OF_ROOM: &str = "add_room_account_data";

/// The endpoint for accounts.
pub struct AddUserAccountData(pub Rc<Instance>);

/// The endpoint for rooms.
pub struct AddRoomAccountData(pub Rc<Instance>);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Body {
    /// What the user keeps.
    pub content: Map<String, Value>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The token it was written under.
    pub max_stream_id: Token,
}

impl Endpoint for AddUserAccountData {
    fn name(&self) -> &'static str {
        OF_USER
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["user", "type"]
    }

    fn has_transaction_id(&self) -> bool {
        false
    }

    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move {
            let [user_id, kind] = request.arguments.as_slice() else { unreachable!("the router counts arguments") };
            add(&instance, &request, user_id, None, kind).await
        })
    }
}

impl Endpoint for AddRoomAccountData {
    fn name(&self) -> &'static str {
        OF_ROOM
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["user", "room", "type"]
    }

    fn has_transaction_id(&self) -> bool {
        false
    }

    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move {
            let [user_id, room_id, kind] = request.arguments.as_slice() else {
                unreachable!("the router counts arguments")
            };
            add(&instance, &request, user_id, Some(room_id), kind).await
        })
    }
}

async fn add(
    instance: &Instance,
    request: &EndpointRequest,
    user_id: &str,
    room_id: Option<&String>,
    kind: &str,
) -> Result<Reply, Refusal> {
    check_writer(instance, account_data::NAME, &instance.config().stream_writers.account_data)?;
    let Body { content } = request.parse()?;
    let datum = Datum {
        user_id: user_id.to_owned(),
        room_id: room_id.cloned(),
        kind: kind.to_owned(),
        content: content.into(),
    };
    let token = instance.set_account_data_once(once(instance, request), vec![datum]).await?;
    Ok(Reply::wrote(object([("max_stream_id", token.0.into())]), account_data::NAME, token))
}
