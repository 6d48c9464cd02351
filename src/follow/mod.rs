//! Following a live deployment: everything that is published on its broker, judged as it comes by the
//! [audit](crate::judge::audit).
//!
//! A [`listen`]er stays subscribed and tells a [`Follower`], which puts everything it is told into the form of a recording,
//! keeps the recording if it is asked to, and lets the audit judge each line of it: what is found live is what is found in
//! the recording later. A [`Watcher`] is told what came of it.
//!
//! Nothing is believed that was not heard. The broker is pinged once a second; time passes for the audit only as far as
//! the answers prove that everything was heard, and what may have been said while there was no connection, or while the
//! broker or this process stood still, is nobody's fault.
//!
//! What waits to be judged is bounded (by the listener's `LIMITS`), what is remembered too
//! ([`bounds`](crate::judge::audit::bounds)), and what is told of one kind of finding as well ([`Follower`]).

mod follower;
mod journal;
mod listener;
mod metrics;

pub use follower::{AWAY_KEPT_MAX, Absences, Follower, Found, FoundOf, SHOWN_MAX, SHOWN_WINDOW_MS};
pub use journal::Journal;
pub use listener::{PING_INTERVAL, Refused, Target, listen};
pub use metrics::FollowMetrics;

use crate::judge::audit::{Away, Finding};
use crate::judge::observation::Moment;

/// What a follower has to tell.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// From now on everything is heard.
    Listening,
    /// From now on nothing is, and this is why. It will be tried again.
    Deaf(&'a str),
    /// What was said in that time was not heard.
    Away(&'a Away),
    /// A rule was not kept.
    Finding(&'a Finding),
    /// So many more findings of a kind were not told of one by one.
    Omitted(&'a str, u64),
    /// The recording cannot go on, and this is why.
    NotRecorded(&'a str),
    /// The positions could not be asked for, and this is why.
    NotAsked(&'a str),
    /// Nothing; but time has passed.
    Tick,
}

/// Who is told.
pub trait Watcher {
    /// It is `now` since the beginning, and there is news of the follower.
    fn tell(&mut self, now: Moment, news: News<'_>, follower: &Follower);
}
