//! Recorded answers of requests that change something, so that each request takes effect once.
//!
//! A client that repeats a request because the answer was lost uses the same transaction id. The answer is recorded in
//! the same database transaction as the effect, because the instance that serves the request may have restarted in
//! between (Synapse #8476).

use rusqlite::{OptionalExtension, Transaction};

/// Time for which an answer is kept, in milliseconds: far longer than any client repeats its request.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// Number of old answers that are deleted with each new one: more than one, so that they do not accumulate.
const DELETED_AT_ONCE: i64 = 20;

/// The identity of a request, the same each time it is sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    /// The endpoint, with its arguments.
    pub endpoint: String,
    /// The transaction id that the client drew, with a hash of the request's body.
    pub transaction_id: String,
}

/// Returns the recorded answer to `request`, if it has already taken effect.
pub fn recorded(tx: &Transaction<'_>, request: &RequestId) -> rusqlite::Result<Option<String>> {
    tx.prepare_cached("SELECT response FROM replication_transactions WHERE endpoint = ?1 AND transaction_id = ?2")?
        .query_row((&request.endpoint, &request.transaction_id), |row| row.get(0))
        .optional()
}

/// Records the answer to `request`, and deletes some answers that are older than a day.
pub fn record(tx: &Transaction<'_>, request: &RequestId, response: &str, now_ms: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO replication_transactions (endpoint, transaction_id, response, received_ts)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((&request.endpoint, &request.transaction_id, response, now_ms))?;
    tx.prepare_cached(
        "DELETE FROM replication_transactions WHERE (endpoint, transaction_id) IN (
             SELECT endpoint, transaction_id FROM replication_transactions
             WHERE received_ts < ?1 ORDER BY received_ts LIMIT ?2)",
    )?
    .execute((now_ms - KEPT_MS, DELETED_AT_ONCE))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::schema;

    fn request(transaction_id: impl Into<String>) -> RequestId {
        RequestId { endpoint: "send_events".into(), transaction_id: transaction_id.into() }
    }

    fn run<R>(test: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R>) -> R {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection).unwrap();
        test(&connection.transaction().unwrap()).unwrap()
    }

    #[test]
    fn an_answer_is_found_under_its_endpoint_and_transaction_id_only() {
        run(|tx| {
            record(tx, &request("a"), "{}", 7)?;
            assert_eq!(recorded(tx, &request("a"))?.as_deref(), Some("{}"));
            assert_eq!(recorded(tx, &request("b"))?, None);
            assert_eq!(recorded(tx, &RequestId { endpoint: "other".into(), ..request("a") })?, None);
            assert!(record(tx, &request("a"), "another", 8).is_err());
            Ok(())
        });
    }

    #[test]
    fn answers_older_than_a_day_are_deleted_a_few_at_a_time() {
        run(|tx| {
            for old in 0..25 {
                record(tx, &request(format!("old{old}")), "{}", old)?;
            }
            record(tx, &request("young"), "{}", 25 + KEPT_MS)?;
            let left: i64 = tx.query_row("SELECT COUNT(*) FROM replication_transactions", (), |row| row.get(0))?;
            assert_eq!(left, 6);
            assert_eq!(recorded(tx, &request("old19"))?, None);
            assert!(recorded(tx, &request("old20"))?.is_some() && recorded(tx, &request("young"))?.is_some());
            Ok(())
        });
    }

    #[test]
    fn an_answer_is_kept_for_a_day() {
        run(|tx| {
            record(tx, &request("a"), "{}", 7)?;
            for (now_ms, is_kept) in [(86_400_007, true), (86_400_008, false)] {
                record(tx, &request(now_ms.to_string()), "{}", now_ms)?;
                assert_eq!(recorded(tx, &request("a"))?.is_some(), is_kept, "{now_ms}");
            }
            Ok(())
        });
    }

    #[test]
    fn the_oldest_answers_are_found_without_a_scan() {
        run(|tx| {
            let query = "EXPLAIN QUERY PLAN SELECT endpoint FROM replication_transactions
                         WHERE received_ts < 7 ORDER BY received_ts LIMIT 20";
            let plan: String = tx.query_row(query, (), |row| row.get("detail"))?;
            assert!(plan.contains("_by_age"), "{plan}");
            Ok(())
        });
    }
}
