//! Sets account data of a user, globally or for a room.

use super::{check_writer, idempotency_key, object};
use crate::instance::Instance;
use crate::store::account_data::Datum;
use crate::transport::http::endpoints::account_data::Body;
use crate::transport::http::{EndpointRequest, HttpRefusal, Reply};
use squall_protocol::rows::account_data;

/// Sets global account data.
pub(super) async fn add_for_user(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    let [user_id, kind] = request.arguments.as_slice() else { unreachable!("the router counts arguments") };
    add(instance, request, user_id, None, kind).await
}

/// Sets account data for a room.
pub(super) async fn add_for_room(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    let [user_id, room_id, kind] = request.arguments.as_slice() else { unreachable!("the router counts arguments") };
    add(instance, request, user_id, Some(room_id), kind).await
}

async fn add(
    instance: &Instance,
    request: &EndpointRequest,
    user_id: &str,
    room_id: Option<&String>,
    kind: &str,
) -> Result<Reply, HttpRefusal> {
    check_writer(instance, account_data::NAME, &instance.config().stream_writers.account_data)?;
    let Body { content } = request.parse()?;
    let datum = Datum {
        user_id: user_id.to_owned(),
        room_id: room_id.cloned(),
        kind: kind.to_owned(),
        content: content.into(),
    };
    let token = instance.set_account_data_once(idempotency_key(instance, request), vec![datum]).await?;
    Ok(Reply::wrote(object([("max_stream_id", token.0.into())]), account_data::NAME, token))
}
