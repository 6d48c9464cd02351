//! `GET get_repl_stream_updates/<stream>/<transaction id>?from_token=..&upto_token=..`: the rows of a stream that this
//! instance writes. Answers `{"updates":[[token,row],...],"upto_token":..,"limited":..}`.

use std::rc::Rc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::object;
use crate::env::LocalBoxFuture;
use crate::instance::Instance;
use crate::protocol::InstanceName;
use crate::transport::http::{Endpoint, EndpointRequest, Refusal, Reply};

/// The endpoint's name.
pub const NAME: &str = "get_repl_stream_updates";

/// The endpoint.
pub struct GetUpdates(pub Rc<Instance>);

impl Endpoint for GetUpdates {
    fn name(&self) -> &'static str {
        NAME
    }

    fn method(&self) -> Method {
        Method::GET
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["stream"]
    }

    fn has_transaction_id(&self) -> bool {
        true
    }

    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move { Ok(Reply::read(updates(&instance, &request).await?)) })
    }
}

async fn updates(instance: &Instance, request: &EndpointRequest) -> Result<Map<String, Value>, Refusal> {
    let (from, upto) = (request.token("from_token")?, request.token("upto_token")?);
    let stream = instance.handler().stream(&request.arguments[0]);
    let stream = stream.ok_or_else(|| Refusal::bad_request("Unknown stream"))?;
    if !stream.writers().contains(instance.name()) {
        let writers: Vec<_> = stream.writers().iter().map(InstanceName::as_str).collect();
        return Err(Refusal::bad_request(format!("{} is written by {}: ask there", stream.name(), writers.join(", "))));
    }
    let updates = stream.updates(instance.name(), from, upto).await;
    let updates = updates.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", error))?;
    let rows: Vec<Value> = updates.rows.iter().map(|(token, row)| json!([token, row.to_json()])).collect();
    Ok(object([("updates", rows.into()), ("upto_token", updates.upto.0.into()), ("limited", updates.limited.into())]))
}
