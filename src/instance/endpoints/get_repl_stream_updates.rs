//! Reads the rows of a stream that this instance writes.

use http::StatusCode;
use serde_json::{Value, json};

use super::object;
use crate::instance::Instance;
use crate::store::DatabaseError;
use crate::streams::UpdateError;
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
    let updates = updates.map_err(refusal)?;
    let rows: Vec<Value> = updates.rows.iter().map(|(token, row)| json!([token, row.to_json()])).collect();
    let upto = updates.upto.0;
    Ok(Reply::read(object([
        ("updates", rows.into()),
        ("upto_token", upto.into()),
        ("limited", updates.limited.into()),
    ])))
}

/// Returns the refusal of a request whose rows could not be read.
fn refusal(error: UpdateError) -> HttpRefusal {
    match error.downcast_ref::<DatabaseError>() {
        Some(database) if database.is_transient() => HttpRefusal::try_again(error),
        _ => HttpRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_client_may_ask_again_if_the_database_was_locked_and_not_if_the_query_failed() {
        let refused = |source| refusal(DatabaseError::Sqlite { transaction: "get_updates", source }.into());
        let locked = refused(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None));
        assert_eq!(locked.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(locked.error, "transaction get_updates failed: another process has locked the database");
        let failed = refused(rusqlite::Error::QueryReturnedNoRows);
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(failed.error, "transaction get_updates failed: Query returned no rows");
    }
}
