//! Shares out the receipts of an EDU among the writers of its rooms.
//!
//! A server sends a user's receipts of several rooms in one EDU, and does not know which instance writes which room's
//! receipts. Synapse refuses such an EDU on every writer (Synapse #17243).

use std::collections::BTreeMap;

use futures_util::future::join_all;
use thiserror::Error;

use super::Instance;
use super::stream_writer::{IdempotencyKey, PersistError};
use crate::transport::http::{HttpError, HttpRefusal};
use squall_protocol::rows::ReceiptsRow;
use squall_protocol::{InstanceName, Token};

/// Receipts that are not known to be written.
#[derive(Debug, Error)]
pub enum ReceiptsError {
    /// Those that this instance writes.
    #[error(transparent)]
    Own(#[from] PersistError),
    /// Those that another instance writes.
    #[error("cannot send receipts to {0}: {1}")]
    Others(InstanceName, HttpError),
}

impl Instance {
    /// Writes receipts of users of `origin`: those that this instance writes here, and the others on their writers, all at
    /// once. Returns the last token of the own ones, if there are any. Where some fail, the others may have been written, and
    /// the caller may repeat all of them.
    pub async fn share_out_receipts(
        &self,
        key: Option<IdempotencyKey>,
        origin: &str,
        receipts: Vec<ReceiptsRow>,
    ) -> Result<Option<Token>, ReceiptsError> {
        let mut by_writer: BTreeMap<InstanceName, Vec<ReceiptsRow>> = BTreeMap::new();
        for receipt in receipts {
            let writer = self.config().receipts_writer_of(&receipt.room_id).clone();
            by_writer.entry(writer).or_default().push(receipt);
        }
        let own = by_writer.remove(self.name());
        let own = async {
            match own {
                Some(own) => Ok(Some(self.insert_receipts_once(key, own).await?)),
                None => Ok(None),
            }
        };
        let others = by_writer.into_iter().map(|(writer, receipts)| async move {
            let sent = self.client().send_receipts(&writer, origin, receipts).await;
            sent.map_err(|error| ReceiptsError::Others(writer, error))
        });
        let (own, others) = futures_util::join!(own, join_all(others));
        others.into_iter().collect::<Result<(), _>>()?;
        own
    }
}

/// A retry is safe: receipts that have been written already change nothing.
impl From<ReceiptsError> for HttpRefusal {
    fn from(error: ReceiptsError) -> Self {
        match error {
            ReceiptsError::Own(error) => error.into(),
            ReceiptsError::Others(..) => HttpRefusal::try_again(error),
        }
    }
}
