//! Writing what users leave on the server: account data, receipts, and messages to devices.

use std::rc::Rc;

use super::Instance;
use super::stream_writer::{Once, PersistError, StreamWriter, Written};
use crate::protocol::Token;
use crate::store::account_data::Datum;
use crate::store::to_device::Message;
use crate::store::{AllocateError, account_data, receipts, to_device};
use crate::streams::{self, AccountDataRow, ReceiptsRow, Row, ToDeviceRow};

impl Instance {
    /// The writer of `stream`, if this instance writes it.
    pub fn writer(&self, stream: &'static str) -> Result<&Rc<StreamWriter>, PersistError> {
        self.writers.get(stream).ok_or_else(|| {
            PersistError::Allocate(AllocateError::NotAWriter { instance: self.name.clone(), stream: stream.into() })
        })
    }

    /// Writes each of `data` over what its user kept there before, in one transaction, and returns the last
    /// token: of those, or of what has come to stand in their place.
    ///
    /// # Panics
    /// If there is nothing to write.
    pub async fn set_account_data(&self, data: Vec<Datum>) -> Result<Token, PersistError> {
        self.set_account_data_once(None, data).await
    }

    /// Writes like [`set_account_data`](Self::set_account_data), but only once for each request.
    ///
    /// # Panics
    /// If there is nothing to write.
    pub async fn set_account_data_once(&self, once: Option<Once>, data: Vec<Datum>) -> Result<Token, PersistError> {
        let (writer, count) = (self.name.clone(), data.len());
        let set = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            Written::once(tx, once.as_ref(), || {
                let (mut rows, mut last) = (Vec::with_capacity(data.len()), Token::default());
                for (token, datum) in tokens.iter().zip(&data) {
                    last = last.max(account_data::set(tx, &writer, *token, datum)?);
                    let Datum { user_id, room_id, kind, .. } = datum.clone();
                    rows.push((*token, Row::AccountData(AccountDataRow { user_id, room_id, kind })));
                }
                Ok(Written { rows, reply: last })
            })
        };
        self.writer(streams::account_data::NAME)?.persist("set_account_data", count, set).await
    }

    /// Takes down up to where a user has read.
    pub async fn insert_receipt(&self, receipt: ReceiptsRow) -> Result<Token, PersistError> {
        self.insert_receipts_once(None, vec![receipt]).await
    }

    /// Takes down up to where users have read, in one transaction and only once for each request, and returns the last
    /// token.
    ///
    /// # Panics
    /// If there is nothing to write.
    pub async fn insert_receipts_once(
        &self,
        once: Option<Once>,
        receipts: Vec<ReceiptsRow>,
    ) -> Result<Token, PersistError> {
        let (writer, count) = (self.name.clone(), receipts.len());
        let insert = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            Written::once(tx, once.as_ref(), || {
                let (mut rows, mut last) = (Vec::with_capacity(receipts.len()), Token::default());
                for (token, receipt) in tokens.iter().zip(&receipts) {
                    last = last.max(receipts::insert(tx, &writer, *token, receipt)?);
                    rows.push((*token, Row::Receipts(receipt.clone())));
                }
                Ok(Written { rows, reply: last })
            })
        };
        self.writer(streams::receipts::NAME)?.persist("insert_receipts", count, insert).await
    }

    /// Puts messages into the inboxes of their recipients, all under one token.
    pub async fn send_to_device(&self, messages: Vec<Message>) -> Result<Token, PersistError> {
        self.send_to_device_once(None, messages).await
    }

    /// Sends like [`send_to_device`](Self::send_to_device), but only once for each request.
    pub async fn send_to_device_once(&self, once: Option<Once>, messages: Vec<Message>) -> Result<Token, PersistError> {
        let writer = self.name.clone();
        let add = move |tx: &rusqlite::Transaction<'_>, tokens: &[Token]| {
            Written::once(tx, once.as_ref(), || {
                to_device::add(tx, &writer, tokens[0], &messages)?;
                let row = |message: &Message| Row::ToDevice(ToDeviceRow { entity: message.user_id.clone() });
                let rows = messages.iter().map(|message| (tokens[0], row(message))).collect();
                Ok(Written { rows, reply: tokens[0] })
            })
        };
        self.writer(streams::to_device::NAME)?.persist("send_to_device", 1, add).await
    }
}
