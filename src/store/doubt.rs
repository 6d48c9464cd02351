//! Doubt about the database: a token was heard that its sequence has not reached.
//!
//! No instance of the deployment can have announced it. So it is believed nowhere, and the reason is one of two:
//!
//! - Something else wrote the line. Then nothing is wrong with the database.
//! - This instance has another database than the others. Then its rows would reach no other instance, because the others are
//!   past their tokens already.
//!
//! Instances announce their positions at least every five seconds. So in the second case the next such token comes soon.
//! Writes wait for it: they are refused if it comes, and go on if it does not.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use squall_protocol::Token;

/// Time in which the next such token comes if the database is another one: longer than the five seconds of the heartbeat.
pub const RENEWED_WITHIN: Duration = Duration::from_secs(7);

/// The doubt about one stream.
#[derive(Debug, Default)]
pub(super) struct Doubt(Cell<Option<Heard>>);

/// The last token that the database had not allocated when it was heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// The token.
    pub token: Token,
    /// The last id that the database had allocated.
    pub last_allocated: Token,
    /// The time of the first of these tokens, each within [`RENEWED_WITHIN`] of the one before.
    since: Instant,
    until: Instant,
}

impl Doubt {
    /// Notes `token`, which was heard while `last_allocated` was the last id.
    pub(super) fn arise(&self, token: Token, last_allocated: Token) {
        let now = Instant::now();
        let since = self.standing().map_or(now, |heard| heard.since);
        self.0.set(Some(Heard { token, last_allocated, since, until: now + RENEWED_WITHIN }));
    }

    /// Returns the last token, while the next one may come.
    fn standing(&self) -> Option<Heard> {
        self.0.get().filter(|heard| heard.until > Instant::now())
    }

    /// Returns the last token, if another one came before it: the database seems to be another one.
    pub(super) fn renewed(&self) -> Option<Heard> {
        self.standing().filter(|heard| heard.until > heard.since + RENEWED_WITHIN)
    }

    /// Waits until it is known if the next token comes.
    ///
    /// # Errors
    /// It has come.
    pub(super) async fn settle(&self) -> Result<(), Heard> {
        let Some(before) = self.standing() else { return Ok(()) };
        sleep_until(before.until).await;
        self.standing().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_token_delays_writes_and_no_more() {
        let doubt = Doubt::default();
        assert!(doubt.settle().await.is_ok());
        doubt.arise(Token(50), Token(3));
        tokio::time::sleep(3 * SECOND).await;
        let began = Instant::now();
        assert!(doubt.settle().await.is_ok() && doubt.renewed().is_none());
        assert_eq!(began.elapsed(), 4 * SECOND);
        doubt.arise(Token(50), Token(3));
        assert!(doubt.renewed().is_none(), "the first doubt is over");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_come_again_and_again_refuse_writes_until_they_end() {
        let doubt = Doubt::default();
        doubt.arise(Token(50), Token(3));
        let settling = async { doubt.settle().await.map_err(|heard| (heard.token, heard.last_allocated)) };
        let renewing = async {
            tokio::time::sleep(5 * SECOND).await;
            doubt.arise(Token(51), Token(3));
        };
        let (settled, ()) = tokio::join!(settling, renewing);
        assert_eq!(settled, Err((Token(51), Token(3))));
        assert!(doubt.renewed().is_some());
        tokio::time::sleep(RENEWED_WITHIN).await;
        assert!(doubt.renewed().is_none() && doubt.settle().await.is_ok());
    }
}
