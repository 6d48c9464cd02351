//! Reads the rows of a stream that this instance writes.

use http::StatusCode;
use serde_json::{Value, json};

use super::object;
use crate::instance::Instance;
use crate::transport::http::{EndpointRequest, HttpRefusal, Reply};
use squall_protocol::InstanceName;

/// Reads the rows between two tokens.
pub(super) async fn handle(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    let from = request.token("from_token")?;
    let upto = request.token("upto_token")?;
    let stream = instance.handler().stream(&request.arguments[0]);
    let stream = stream.ok_or_else(|| HttpRefusal::bad_request("Unknown stream"))?;
    if !stream.writers().contains(instance.name()) {
        let writers: Vec<_> = stream.writers().iter().map(InstanceName::as_str).collect();
        return Err(HttpRefusal::bad_request(format!(
            "{} is written by {}: ask there",
            stream.name(),
            writers.join(", ")
        )));
    }
    let updates = stream.updates(instance.name(), from, upto).await;
    let updates = updates.map_err(|error| HttpRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", error))?;
    let rows: Vec<Value> = updates.rows.iter().map(|(token, row)| json!([token, row.to_json()])).collect();
    let upto = updates.upto.0;
    Ok(Reply::read(object([
        ("updates", rows.into()),
        ("upto_token", upto.into()),
        ("limited", updates.limited.into()),
    ])))
}
