//! Writes users' data: account data, receipts, and messages to devices.

use super::Instance;
use super::stream_writer::{IdempotencyKey, PersistError, Written};
use crate::store::account_data::Datum;
use crate::store::to_device::Message;
use crate::store::{account_data, receipts, to_device};
use squall_protocol::Token;
use squall_protocol::rows::{self, AccountDataRow, ReceiptsRow, Row, ToDeviceRow};

impl Instance {
    /// Writes account data in one transaction, and returns the last token. Each of `data` replaces the earlier content of
    /// its type. Where the database already holds newer content, its token counts instead.
    ///
    /// # Panics
    /// If there is nothing to write.
    pub async fn set_account_data(&self, data: Vec<Datum>) -> Result<Token, PersistError> {
        self.set_account_data_once(None, data).await
    }

    /// Writes like [`set_account_data`](Self::set_account_data), but only once for each idempotency key.
    ///
    /// # Panics
    /// If there is nothing to write.
    pub async fn set_account_data_once(
        &self,
        key: Option<IdempotencyKey>,
        data: Vec<Datum>,
    ) -> Result<Token, PersistError> {
        let writer = self.name.clone();
        let count = data.len();
        let set = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            Written::once(tx, key.as_ref(), || {
                let mut rows = Vec::with_capacity(data.len());
                let mut standing = Vec::with_capacity(tokens.len());
                for (token, datum) in tokens.iter().zip(&data) {
                    standing.push(account_data::set(tx, &writer, *token, datum)?);
                    let Datum { user_id, room_id, kind, .. } = datum.clone();
                    rows.push((*token, Row::AccountData(AccountDataRow { user_id, room_id, kind })));
                }
                Ok(Written::standing(rows, tokens, standing))
            })
        };
        self.writer(rows::account_data::NAME)?.persist("set_account_data", count, set).await
    }

    /// Writes a receipt: the position up to which a user has read a room. Returns its token.
    pub async fn insert_receipt(&self, receipt: ReceiptsRow) -> Result<Token, PersistError> {
        self.insert_receipts_once(None, vec![receipt]).await
    }

    /// Writes receipts in one transaction, only once for each idempotency key, and returns the last token.
    ///
    /// # Panics
    /// If there is nothing to write.
    pub async fn insert_receipts_once(
        &self,
        key: Option<IdempotencyKey>,
        receipts: Vec<ReceiptsRow>,
    ) -> Result<Token, PersistError> {
        let writer = self.name.clone();
        let count = receipts.len();
        let insert = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            Written::once(tx, key.as_ref(), || {
                let mut rows = Vec::with_capacity(receipts.len());
                let mut standing = Vec::with_capacity(tokens.len());
                for (token, receipt) in tokens.iter().zip(&receipts) {
                    standing.push(receipts::insert(tx, &writer, *token, receipt)?);
                    rows.push((*token, Row::Receipts(receipt.clone())));
                }
                Ok(Written::standing(rows, tokens, standing))
            })
        };
        self.writer(rows::receipts::NAME)?.persist("insert_receipts", count, insert).await
    }

    /// Writes messages of the server `origin` to the inboxes of their recipients' devices, all under one token, and returns
    /// it. All have one message id. Where messages of `origin` with that id were written before, returns their token.
    ///
    /// # Panics
    /// If there are no messages.
    pub async fn send_to_device(&self, origin: &str, messages: Vec<Message>) -> Result<Token, PersistError> {
        self.send_to_device_once(None, origin, messages).await
    }

    /// Sends like [`send_to_device`](Self::send_to_device), but only once for each idempotency key.
    ///
    /// # Panics
    /// If there are no messages.
    pub async fn send_to_device_once(
        &self,
        key: Option<IdempotencyKey>,
        origin: &str,
        messages: Vec<Message>,
    ) -> Result<Token, PersistError> {
        let (writer, origin) = (self.name.clone(), origin.to_owned());
        let message_id = messages[0].message_id.clone();
        debug_assert!(messages.iter().all(|message| message.message_id == message_id));
        let now_ms = self.env().clock.now_ms() as i64;
        let add = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            Written::once(tx, key.as_ref(), || {
                if let Some(first) = to_device::arrived(tx, &origin, &message_id, tokens[0], now_ms)? {
                    return Ok(Written::standing(Vec::new(), tokens, vec![first]));
                }
                to_device::add(tx, &writer, tokens[0], &messages)?;
                let row = |message: &Message| Row::ToDevice(ToDeviceRow { entity: message.user_id.clone() });
                let rows = messages.iter().map(|message| (tokens[0], row(message))).collect();
                Ok(Written::new(rows, tokens[0]))
            })
        };
        self.writer(rows::to_device::NAME)?.persist("send_to_device", 1, add).await
    }
}
